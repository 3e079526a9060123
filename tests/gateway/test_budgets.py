"""A hard budget is never exceeded; what does not fit is made to fit or refused; every reservation ends."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from ias.contracts.spending import window_id
from tests.gateway.platform import INPUT_PRICE, OUTPUT_PRICE, PROJECT, RunningGateway, budget, until
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import (
    USAGE,
    Received,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
)

COST = (10 * INPUT_PRICE + 5 * OUTPUT_PRICE) // 1_000_000


async def test_a_hundred_at_once_never_exceed_a_hard_budget(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    reserved_most = 0

    async def script(received: Received, session: Session) -> None:
        nonlocal reserved_most
        settled, reserved = await gateway.pushed.counter("b1")
        reserved_most = max(reserved_most, settled + reserved)
        await answer_politely(received, session)

    upstream.script = script
    limit = 5_000_000
    await gateway.pushed.budgets(budget(limit))
    answers = await asyncio.gather(*(ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key) for _ in range(100)))
    served = sum(answer.status == 200 for answer in answers)
    assert {answer.status for answer in answers} == {200, 429}
    await gateway.until_quiet()
    settled, reserved = await gateway.pushed.counter("b1")
    assert (settled, reserved) == (served * COST, 0)
    assert reserved_most <= limit
    assert len(await gateway.records(served)) == served


async def test_86_an_exhausted_budget_says_so_and_asks_not_to_retry(gateway: RunningGateway, tmp_path: Path) -> None:
    await gateway.pushed.budgets(budget(10))
    access_log = gateway.worker.gateway.access_log
    with (tmp_path / "access.log").open("wb") as log:
        access_log._enabled, access_log._fd = True, log.fileno()
        answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
        await until(lambda: (tmp_path / "access.log").stat().st_size > 0)
        access_log._enabled = False
    line = json.loads((tmp_path / "access.log").read_text())
    assert (line["status"], line["code"], line["denied_by"]) == (429, "insufficient_quota", "budget:b1")
    assert answer.headers["x-request-id"] == line["request_id"]
    assert answer.status == 429
    assert (answer.error["type"], answer.error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-ias-denied-by"] == "budget:b1"
    assert answer.headers["x-ias-remaining-nano-usd"] == "10"


async def test_a_refusal_says_when_there_is_room_again(gateway: RunningGateway) -> None:
    windows = ("rolling_24h", "day", "total")
    waits = {}
    for window in windows:
        await gateway.pushed.budgets(replace(budget(2 * COST * 1000, name=window), window=window))
        first = await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)
        assert first.status == 200
        await gateway.until_quiet()
        counter = await gateway.pushed.find_counter(window)
        await gateway.pushed.redis.hset(counter, "settled", 2 * COST * 1000)
        refused = await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)
        assert (refused.status, refused.headers["x-should-retry"]) == (429, "false")
        waits[window] = refused.headers.get("retry-after")
        assert ("There is room for it again by " in refused.error["message"]) == (window != "total")
    assert waits["total"] is None
    assert 0 < int(waits["day"] or 0) <= 86_400
    assert 86_400 <= int(waits["rolling_24h"] or 0) <= 86_400 + 3_601


async def test_a_budget_that_may_be_overridden_says_so_and_whom_to_ask(gateway: RunningGateway) -> None:
    await gateway.pushed.budgets(replace(budget(10), at_limit="require_override"))
    refused = await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)
    assert (refused.error["type"], refused.error["code"]) == ("insufficient_quota", "budget_override_required")
    assert "owner, admin or finance of your organization may raise the budget b1" in refused.error["message"]
    assert refused.headers["x-should-retry"] == "false"


async def test_a_budget_that_could_never_bear_a_request_tells_no_time(gateway: RunningGateway) -> None:
    for window in ("rolling_24h", "day"):
        await gateway.pushed.budgets(replace(budget(10), window=window))
        refused = await ask(gateway.port, chat(max_tokens=5), key=gateway.pushed.key)
        assert (refused.status, refused.headers.get("retry-after")) == (429, None)


async def test_a_rolling_budget_counts_where_billing_looks(gateway: RunningGateway) -> None:
    """By the time in the request's id, in the part that the time falls in, and only there."""
    await gateway.pushed.budgets(replace(budget(10**12), window="rolling_24h"))
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    await gateway.until_quiet()
    (record,) = await gateway.records(1)
    admitted_s = int(record["id"].replace("-", "")[:12], 16) / 1000
    assert await gateway.pushed.counter("b1", window_id("rolling_24h", admitted_s)) == (COST, 0)
    assert len(await gateway.pushed.redis.keys("*:budget:*")) == 1


async def test_output_is_limited_to_what_the_budget_bears(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = request_bytes(chat(max_tokens=4000), key=gateway.pushed.key)
    await gateway.pushed.budgets(budget(3_000_000))
    async with connect(gateway.port) as client:
        await client.send(body)
        assert (await client.read_answer()).status == 200
    limit = upstream.received[0].document["max_tokens"]
    assert 1 <= limit < 1500
    await ask(gateway.port, chat(max_tokens=4000), key=gateway.pushed.key)
    assert 1 <= upstream.received[1].document["max_tokens"] < limit


async def test_a_null_limit_of_the_client_does_not_undo_ours(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.budgets(budget(3_000_000))
    body = b'{"model":"m","messages":[{}],"max_tokens":null,"max\\u005fcompletion_tokens":null}'
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    document = upstream.received[0].document
    assert document["max_tokens"] == document["max_completion_tokens"] < 1500


async def test_the_models_own_limit_is_put_in(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    await gateway.pushed.everything(upstream.url, output_tokens_max=77)
    await until(lambda: gateway.worker.gateway.snapshots.routes.models["m"].output_tokens_max == 77)  # type: ignore[union-attr]
    for body in (chat(), chat(max_tokens=100), chat(max_tokens=50)):
        await ask(gateway.port, body, key=gateway.pushed.key)
    assert [received.document["max_tokens"] for received in upstream.received] == [77, 77, 50]


async def test_a_soft_budget_refuses_once_it_is_spent(gateway: RunningGateway) -> None:
    await gateway.pushed.budgets(budget(1, mode="soft"))
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (COST, 0)
    refused = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-ias-denied-by"] == "budget:b1"


async def test_an_alert_budget_counts_and_never_refuses(gateway: RunningGateway) -> None:
    await gateway.pushed.budgets(budget(1, mode="alert"))
    for times in (1, 2):
        assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
        await gateway.until_quiet()
        assert await gateway.pushed.counter("b1") == (times * COST, 0)


async def test_all_scopes_count_and_the_narrowest_denies(gateway: RunningGateway) -> None:
    await gateway.pushed.budgets(
        budget(10**12, name="org"),
        budget(10**12, kind="project", scope=PROJECT, name="project"),
        budget(10**12, kind="api_key", scope="key-1", name="key"),
        budget(10**12, kind="model", scope="m", name="model"),
        budget(10, kind="user", scope="user-1", name="user"),
        budget(10, kind="api_key", scope="other", name="others"),
    )
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.headers["x-ias-denied-by"] == "budget:user"
    assert await gateway.pushed.counter("org") == (0, 0)
    await gateway.pushed.budgets(budget(10**12, name="org"), budget(10**12, kind="model", scope="m", name="model"))
    while (await ask(gateway.port, chat(), key=gateway.pushed.key)).status != 200:
        pass
    await gateway.until_quiet()
    assert await gateway.pushed.counter("org") == await gateway.pushed.counter("model") == (COST, 0)


async def test_cached_tokens_have_their_own_price(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send_json(completion(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}))

    upstream.script = script
    await ask(gateway.port, chat(), key=gateway.pushed.key)
    (record,) = await gateway.records(1)
    assert record["cached_input_tokens"] == 4
    assert record["cost_nano_usd"] == COST - 4 * 500


async def test_what_no_backend_served_costs_nothing(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        session.abort()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 502
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (0, 0)
    assert gateway.publisher.records == []


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 8, "completion_tokens": 2}])
async def test_47_a_client_that_leaves_pays_for_what_was_made(
    gateway: RunningGateway, upstream: ScriptedUpstream, usage: dict[str, int] | None
) -> None:
    aborted = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        for _ in range(3):
            await session.event(chunk("a", **({"usage": usage} if usage else {})))
        await session.wait_closed_by_peer()
        aborted.set()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_head()
        await client.reader.readuntil(b"\n\n")
        await until(lambda: gateway.worker.gateway.metrics.in_flight == 1)
        client.abort()
    async with asyncio.timeout(5):
        await aborted.wait()
    (record,) = await gateway.records(1)
    assert record["outcome"] == "cancelled"
    assert record["estimated"] is (usage is None)
    if usage is not None:
        assert (record["input_tokens"], record["output_tokens"]) == (8, 2)
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("politely", [False, True])
async def test_46_48_a_client_that_leaves_before_the_answer_stops_the_backend_and_pays_for_its_input(
    gateway: RunningGateway, upstream: ScriptedUpstream, stream: bool, politely: bool
) -> None:
    arrived, aborted = asyncio.Event(), asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        arrived.set()
        await session.wait_closed_by_peer()
        aborted.set()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=stream), key=gateway.pushed.key))
        await arrived.wait()
        if politely:
            client.writer.close()  # FIN: could be a half-close as well
        else:
            client.abort()
        async with asyncio.timeout(5):
            await aborted.wait()
    await gateway.until_nothing_is_held()
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["status"], record["estimated"]) == ("cancelled", 499, True)
    assert (record["input_tokens"], record["output_tokens"]) == (len(json.dumps(chat(stream=stream))) // 4, 0)
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


async def test_48_a_client_that_leaves_in_the_middle_of_an_answer_pays_for_its_length(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    half_sent = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        await session.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 400\r\n\r\n{")
        half_sent.set()
        await session.wait_closed_by_peer()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(), key=gateway.pushed.key))
        await half_sent.wait()
        (busy,) = (pool.busy for pool in gateway.worker.gateway.upstreams._pools.values())
        await until(lambda: all(connection.has_answered for connection in busy))
        client.abort()
        await until(lambda: upstream.open_sessions == 0)
    await gateway.until_nothing_is_held()
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("cancelled", 100, True)
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


@pytest.mark.parametrize("status", [400, 500])
async def test_a_client_that_leaves_in_the_middle_of_a_refusal_pays_nothing(
    gateway: RunningGateway, upstream: ScriptedUpstream, status: int
) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send(b"HTTP/1.1 %d No\r\ncontent-length: 400\r\n\r\n{" % status)
        await session.wait_closed_by_peer()

    upstream.script = script
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(), key=gateway.pushed.key))
        await until(
            lambda: any(c.has_answered for p in gateway.worker.gateway.upstreams._pools.values() for c in p.busy)
        )
        client.abort()
        await until(lambda: upstream.open_sessions == 0)
    await gateway.until_nothing_is_held()
    assert gateway.publisher.records == []
    assert await gateway.pushed.counter("b1") == (0, 0)


@pytest.mark.parametrize(
    ("endpoint", "limits", "sent"),
    [
        ("chat/completions", {"max_output_tokens": 1}, {"max_output_tokens", "max_tokens"}),
        ("chat/completions", {"max_tokens": 4000, "max_completion_tokens": 1}, {"max_tokens", "max_completion_tokens"}),
        ("completions", {"max_completion_tokens": 1}, {"max_completion_tokens", "max_tokens"}),
        ("completions", {"max_completion_tokens": 1, "max_tokens": 4000}, {"max_completion_tokens", "max_tokens"}),
        ("responses", {"max_tokens": 1}, {"max_tokens", "max_output_tokens"}),
    ],
)
async def test_a_limit_that_an_engine_may_not_heed_is_not_reserved_by(
    gateway: RunningGateway, upstream: ScriptedUpstream, endpoint: str, limits: dict[str, int], sent: set[str]
) -> None:
    await gateway.pushed.budgets(budget(3_000_000))
    body = {"model": "m", "messages": [{}], "prompt": "Hi", "input": "Hi", "stream": False, **limits}
    assert (await ask(gateway.port, body, path=f"/v1/{endpoint}", key=gateway.pushed.key)).status == 200
    document = upstream.received[0].document
    lowered = {name: value for name, value in document.items() if name.startswith("max_")}
    assert set(lowered) == sent
    assert 1 < max(lowered.values()) < 1500


async def test_an_engines_own_names_for_limits_go_no_further(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    body = chat(max_tokens=5, n_predict=4000, n_cmpl=9, rid="x", bootstrap_host="10.0.0.1", bootstrap_room=1)
    assert (await ask(gateway.port, body, key=gateway.pushed.key)).status == 200
    assert upstream.received[0].document == chat(max_tokens=5)
