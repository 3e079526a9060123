"""Rate limits hold exactly, across gateways; what a request took too much of is given back, however it ended; clients are told."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.api_keys import generate_key
from ias.contracts.spending import RateLimit
from ias.gateway.rate_limits import format_duration
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import ORG, PROJECT, RunningGateway, backends, budget, limit, until
from tests.gateway.raw_client import Answer, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, answer_politely, chunk

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
USED = 15
"""What the scripted backend reports for an answer: 10 tokens in, 5 out."""


async def ask_chat(gateway: RunningGateway, **more: Any) -> Answer:
    return await ask(gateway.port, chat(**more), key=gateway.pushed.key)


def limits_told(answer: Answer) -> dict[str, tuple[int, int, str]]:
    """The `x-ratelimit-*` headers: limit, remaining and reset of requests and of tokens, each complete or not there."""
    told = {}
    for kind in ("requests", "tokens"):
        names = [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset")]
        if any(name in answer.headers for name in names):
            most, left, reset = (answer.headers[name] for name in names)
            told[kind] = (int(most), int(left), reset)
    return told


GO_DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s)?|\d+ms")


@pytest.mark.parametrize("stream", [False, True])
async def test_87_headers_say_what_is_left_of_the_tightest_limits(gateway: RunningGateway, stream: bool) -> None:
    await gateway.pushed.limits(
        limit("requests_per_minute", 60, name="wide"),
        limit("requests_per_minute", 4, kind="project", scope=PROJECT),
        limit("requests_per_day", 1000, kind="api_key", scope="key-1"),
        limit("tokens_per_minute", 6000, kind="model", scope="m"),
        limit("tokens_per_minute", 1, kind="model", scope="another"),
        limit("concurrency", 9),
    )
    answer = await ask_chat(gateway, stream=stream, max_tokens=100)
    assert answer.status == 200
    told = limits_told(answer)
    assert told["requests"] == (4, 3, "15s")
    most, left, reset = told["tokens"]
    assert most == 6000
    assert 5800 < left < 5900
    assert re.fullmatch(r"1(\.\d+)?s", reset)


async def test_84_requests_over_the_limit_are_429_and_told_when_to_come_back(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.limits(limit("requests_per_minute", 2, name="rpm"))
    answers = [await ask_chat(gateway) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    refusal = answers[2]
    assert (refusal.error["type"], refusal.error["code"]) == ("requests", "rate_limit_exceeded")
    assert re.fullmatch(
        rf"Rate limit reached for model `m` in organization {ORG} on requests per min \(RPM\): "
        r"Limit 2, Used 2, Requested 1\. Please try again in 2\d(\.\d+)?s\.",
        refusal.error["message"],
    )
    assert refusal.headers["x-ias-denied-by"] == "rate_limit:rpm"
    assert 20_000 < int(refusal.headers["retry-after-ms"]) <= 30_000
    assert 20 < int(refusal.headers["retry-after"]) <= 30
    assert "x-should-retry" not in refusal.headers
    assert limits_told(refusal)["requests"][:2] == (2, 0)
    assert len(upstream.received) == 2
    exported = gateway.metrics()
    assert 'ias_gateway_rate_limit_refusals_total{metric="requests_per_minute",scope="org"} 1' in exported


async def test_85_tokens_over_the_limit_are_429_of_type_tokens(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("tokens_per_minute", 300))
    assert (await ask_chat(gateway, max_tokens=10)).status == 200
    refusal = await ask_chat(gateway, max_tokens=270)
    assert refusal.status == 429
    assert (refusal.error["type"], refusal.error["code"]) == ("tokens", "rate_limit_exceeded")
    assert "on tokens per min (TPM): Limit 300, Used " in refusal.error["message"]
    assert int(refusal.headers["retry-after"]) >= 1
    most, left, reset = limits_told(refusal)["tokens"]
    assert (most, GO_DURATION.fullmatch(reset) is not None) == (300, True)
    assert left >= 300 - USED


async def test_a_request_that_can_never_fit_is_told_so_and_not_to_retry(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("tokens_per_minute", 300))
    refusal = await ask_chat(gateway, max_tokens=1000)
    assert refusal.status == 429
    assert refusal.error["message"].startswith("Request too large for model `m`")
    assert refusal.headers["x-should-retry"] == "false"
    assert "retry-after" not in refusal.headers


async def test_a_wait_until_midnight_is_not_sat_out_by_clients(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("requests_per_day", 1))
    await ask_chat(gateway)
    refusal = await ask_chat(gateway)
    assert "requests per day (RPD): Limit 1, Used 1" in refusal.error["message"]
    if int(refusal.headers["retry-after"]) > 60:
        assert refusal.headers["x-should-retry"] == "false"


async def test_without_limits_nothing_is_asked_and_nothing_said(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("requests_per_minute", 1, kind="api_key", scope="another"))
    before = await gateway.pushed.redis.info("commandstats")
    answer = await ask_chat(gateway)
    after = await gateway.pushed.redis.info("commandstats")
    assert limits_told(answer) == {}
    assert after.get("cmdstat_evalsha") == before.get("cmdstat_evalsha")


async def test_tokens_are_charged_as_the_engine_counted_them(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("tokens_per_minute", 4000))
    for _ in range(20):
        assert (await ask_chat(gateway, max_tokens=3000)).status == 200
        await gateway.until_quiet()
    (record, *_) = await gateway.records(1)
    assert record["decision"]["rate_limits"] == ["tokens_per_minute"]
    assert 3000 < record["decision"]["expected_tokens"] < 3100


async def test_what_no_backend_served_uses_no_tokens_and_no_place(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(_: Received, session: Session) -> None:
        session.abort()

    await gateway.pushed.limits(limit("tokens_per_minute", 4000), limit("concurrency", 1))
    upstream.script = script
    for _ in range(3):
        answer = await ask_chat(gateway, max_tokens=3000)
        assert answer.status == 502
        assert limits_told(answer)["tokens"][0] == 4000
        await gateway.until_nothing_is_held()
    upstream.script = answer_politely
    assert (await ask_chat(gateway, max_tokens=3000)).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place(
    gateway: RunningGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    arrived = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        arrived.set()
        if stream:
            await session.begin_stream()
            await session.event(chunk("a"))
        await session.wait_closed_by_peer()

    upstream.script = script
    await gateway.pushed.limits(limit("concurrency", 1), limit("tokens_per_minute", 4000))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=stream, max_tokens=2000), key=gateway.pushed.key))
        await arrived.wait()
        refusal = await ask_chat(gateway)
        assert refusal.status == 429
        assert "on concurrent requests: Limit 1, Used 1, Requested 1" in refusal.error["message"]
        assert refusal.headers["retry-after"] == "1"
        client.abort()
    await gateway.until_nothing_is_held()
    upstream.script = answer_politely
    assert (await ask_chat(gateway, max_tokens=3500)).status == 200


async def test_a_limit_is_exact_over_several_gateways(
    gateway: RunningGateway, start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    busy = most = 0

    async def script(received: Received, session: Session) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.005)
        busy -= 1
        await answer_politely(received, session)

    upstream.script = script
    others = [await start_gateway() for _ in range(2)]
    for other in others:
        await other.until_ready()
    gateways = [gateway, *others]
    await gateway.pushed.limits(limit("requests_per_day", 40), limit("concurrency", 7))
    statuses: list[int] = []

    async def keep_asking(one: RunningGateway) -> None:
        statuses.extend([(await ask_chat(one)).status for _ in range(20)])

    await asyncio.gather(*(keep_asking(one) for one in gateways * 5))
    served = statuses.count(200)
    assert set(statuses) == {200, 429}
    assert served == 40  # 300 asked; one that found no place did not count for the day
    assert most <= 7
    for one in gateways:
        await one.until_nothing_is_held()


async def test_a_request_that_a_budget_refuses_counts_in_no_limit(gateway: RunningGateway) -> None:
    requests = limit("requests_per_minute", 5)
    await gateway.pushed.ceilings(budgets=(budget(10),), limits=(requests,))
    refusals = [await ask_chat(gateway) for _ in range(3)]
    assert {refusal.error["code"] for refusal in refusals} == {"insufficient_quota"}
    assert [limits_told(refusal)["requests"][1] for refusal in refusals] == [5, 5, 5]


async def test_a_request_that_a_limit_refuses_counts_in_no_budget(gateway: RunningGateway) -> None:
    await gateway.pushed.ceilings(budgets=(budget(10**12),), limits=(limit("requests_per_day", 1),))
    assert [(await ask_chat(gateway)).status for _ in range(3)] == [200, 429, 429]
    await gateway.until_nothing_is_held()
    assert await gateway.pushed.counter("b1") == (20_000, 0)


async def test_an_unpriced_model_is_limited_as_well(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(gateway_unpriced="allow")
    await gateway.pushed.everything(upstream.url)
    await gateway.pushed.prices()
    await gateway.pushed.ceilings(budgets=(budget(0),), limits=(limit("requests_per_day", 1),))
    await gateway.until_ready()
    assert [(await ask_chat(gateway)).status for _ in range(2)] == [200, 429]


async def test_a_changed_limit_applies_to_keys_that_are_already_known(gateway: RunningGateway) -> None:
    await gateway.pushed.limits(limit("requests_per_day", 1))
    assert [(await ask_chat(gateway)).status for _ in range(2)] == [200, 429]
    await gateway.pushed.limits(limit("requests_per_day", 3))
    async with asyncio.timeout(5):
        while (answer := await ask_chat(gateway)).status != 200:
            pass
    assert limits_told(answer)["requests"][:2] == (3, 1)
    await gateway.pushed.limits()
    async with asyncio.timeout(5):
        while limits_told(await ask_chat(gateway)):
            pass


@pytest.mark.parametrize(
    "scoped",
    [
        limit("requests_per_day", 1, kind="project", scope=PROJECT),
        limit("requests_per_day", 1, kind="api_key", scope="key-1"),
        limit("requests_per_day", 1, kind="user", scope="user-1"),
        limit("requests_per_day", 1, kind="model", scope="m"),
    ],
    ids=lambda each: each.scope_kind,
)
async def test_a_limit_bounds_its_scope_and_nobody_else(
    gateway: RunningGateway, upstream: ScriptedUpstream, scoped: RateLimit
) -> None:
    await gateway.pushed.limits(scoped)
    await gateway.pushed.routes({name: {"backends": backends(upstream.url)} for name in ("m", "n")})
    await gateway.pushed.prices("m", "n")
    await gateway.pushed.tenants(project="project-2")
    outsider = await gateway.pushed.api_key(
        generate_key(), key_id="key-2", project_id="project-2", user_id="user-2", models=("n",)
    )
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: "n" in snapshots.routes.models and "n" in snapshots.prices.prices)  # type: ignore[union-attr]
    assert [(await ask_chat(gateway)).status for _ in range(2)] == [200, 429]
    for _ in range(2):
        assert (await ask(gateway.port, chat(model="n"), key=outsider)).status == 200


@pytest.fixture
async def sdk(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key) as client:
        yield client


async def test_84_87_the_sdk_comes_back_when_told_and_succeeds(
    gateway: RunningGateway, upstream: ScriptedUpstream, sdk: openai.AsyncOpenAI
) -> None:
    arrived, refused = asyncio.Event(), asyncio.Event()

    async def script(received: Received, session: Session) -> None:
        if not arrived.is_set():
            arrived.set()
            await refused.wait()
        await answer_politely(received, session)

    upstream.script = script
    await gateway.pushed.limits(limit("concurrency", 1), limit("requests_per_minute", 100))
    first = asyncio.create_task(sdk.chat.completions.create(model="m", messages=MESSAGES))
    await arrived.wait()
    second = asyncio.create_task(sdk.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    await until(lambda: gateway.worker.gateway.metrics._refusals["rate_limit_exceeded"] == 1)
    refused.set()
    assert (await first).choices[0].message.content == "Hello"
    answer = await second
    assert answer.retries_taken == 1
    assert int(answer.headers["x-ratelimit-remaining-requests"]) in (98, 99)


async def test_84_the_sdk_raises_its_own_error(gateway: RunningGateway, sdk: openai.AsyncOpenAI) -> None:
    await gateway.pushed.limits(limit("requests_per_day", 1))
    await sdk.chat.completions.create(model="m", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.with_options(max_retries=0).chat.completions.create(model="m", messages=MESSAGES)
    assert (caught.value.type, caught.value.code) == ("requests", "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("millis", "text"),
    [
        (0, "0s"),
        (7, "7ms"),
        (120, "120ms"),
        (1000, "1s"),
        (8640, "8.64s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (86_116_126, "23h55m16.126s"),
    ],
)
def test_87_durations_look_as_openais_do(millis: int, text: str) -> None:
    assert format_duration(millis).decode() == text


@given(st.integers(0, 10**9))
def test_87_every_duration_can_be_read_back(millis: int) -> None:
    text = format_duration(millis).decode()
    units = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", text)
    assert round(sum(float(number) * units[unit] for number, unit in parts)) == millis
    assert "".join(number + unit for number, unit in parts) == text
