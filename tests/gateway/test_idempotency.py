"""Idempotency-Key: a request that is repeated is answered as before and charged once. Case 52 of conformance/README.md."""

import asyncio
from typing import Any

import openai
import pytest

from ias.contracts.api_keys import generate_key
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import ORG, Pushed, RunningGateway, budget, until
from tests.gateway.raw_client import Answer, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import (
    Received,
    ScriptedUpstream,
    Session,
    answer_politely,
    completion,
)


async def ask_with(gateway: RunningGateway, key: str, body: Any = None, **more: Any) -> Answer:
    return await ask(
        gateway.port,
        chat() if body is None else body,
        key=more.pop("api_key", gateway.pushed.key),
        headers={"idempotency-key": key},
        **more,
    )


async def ask_until_replayed(gateway: RunningGateway, key: str, body: Any = None) -> Answer:
    """Repeat until the stored answer is there: it is stored a moment after it was sent."""
    while (answer := await ask_with(gateway, key, body)).status == 409:
        pass
    return answer


async def until_free(gateway: RunningGateway) -> None:
    await gateway.until_quiet()
    while await gateway.pushed.redis.keys("*:idempotency:*"):
        await asyncio.sleep(0.01)


async def test_52_a_repetition_gets_the_same_answer_and_is_charged_once(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.budgets(budget(1_000_000_000))

    async def count(_: Received, session: Session) -> None:
        await session.send_json({**completion(), "id": f"chatcmpl-{len(upstream.received)}"})

    upstream.script = count
    first = await ask_with(gateway, "k")
    assert first.status == 200
    assert "idempotency-replayed" not in first.headers
    for _ in range(3):
        again = await ask_until_replayed(gateway, "k")
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["x-ias-original-request-id"] == first.headers["x-request-id"]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(upstream.received) == 1
    await gateway.until_quiet()
    (record,) = await gateway.records(1)
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)
    (name,) = await gateway.pushed.redis.keys("*:idempotency:*")
    assert f"{{{ORG}}}".encode() in name
    assert 86_000 < await gateway.pushed.redis.ttl(name) <= 86_400


async def test_52_another_body_or_endpoint_is_422(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    assert (await ask_with(gateway, "k")).status == 200
    for body, path in [
        (chat(user="x"), "/v1/chat/completions"),
        ({**chat(), "prompt": "Hi"}, "/v1/completions"),
    ]:
        answer = await ask_with(gateway, "k", body, path=path)
        assert (answer.status, answer.error["type"], answer.error["code"]) == (
            422,
            "invalid_request_error",
            "idempotency_key_reused",
        )
    assert len(upstream.received) == 1


async def test_52_a_repetition_that_comes_too_soon_is_asked_to_come_back(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    upstream.script = slowly
    first = asyncio.create_task(ask_with(gateway, "k"))
    await arrived.wait()
    answer = await ask_with(gateway, "k")
    assert (answer.status, answer.error["code"]) == (409, "idempotency_key_in_use")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
    assert (await ask_with(gateway, "k", chat(user="x"))).status == 422
    go_on.set()
    assert (await first).status == 200
    assert (await ask_until_replayed(gateway, "k")).body == (await first).body
    assert len(upstream.received) == 1


async def test_a_hundred_at_once_reach_the_backend_once(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    answers = await asyncio.gather(*(ask_with(gateway, "k") for _ in range(100)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len([a for a in answers if a.status == 200 and "idempotency-replayed" not in a.headers]) == 1
    assert len(upstream.received) == 1


async def test_the_sdk_waits_for_the_answer_of_its_first_try(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    upstream.script = slowly
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key) as sdk:

        def create() -> Any:
            return sdk.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], extra_headers={"Idempotency-Key": "k"}
            )

        first = asyncio.create_task(create())
        await arrived.wait()
        second = asyncio.create_task(create())
        await until(lambda: gateway.worker.gateway.metrics._refusals["idempotency_key_in_use"] == 1)
        go_on.set()
        assert (await first).id == (await second).id
    assert len(upstream.received) == 1


async def test_a_clients_error_is_repeated_and_a_servers_is_not(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def refuse(_: Received, session: Session) -> None:
        await session.send_json({"error": {"message": f"bad {len(upstream.received)}"}}, 400)

    async def fail(_: Received, session: Session) -> None:
        await session.send_json({"error": {"message": "boom"}}, 500)

    upstream.script = refuse
    first = await ask_with(gateway, "a")
    again = await ask_until_replayed(gateway, "a")
    assert (again.status, again.body) == (400, first.body)
    upstream.script = fail
    assert (await ask_with(gateway, "b")).status == 500
    upstream.script = answer_politely
    assert (await ask_until_replayed(gateway, "b")).status == 200
    assert len(upstream.received) == 3


async def test_a_refusal_that_time_may_heal_is_not_remembered(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    await gateway.pushed.budgets(budget(1))
    while gateway.worker.gateway.metrics._refusals["insufficient_quota"] == 0:  # until the budget has arrived
        await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (await ask_with(gateway, "k")).status == 429
    await gateway.pushed.budgets()
    while (answer := await ask_with(gateway, "k")).status in (409, 429):
        pass
    assert answer.status == 200


async def test_a_client_that_leaves_gives_its_claim_up(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    arrived = asyncio.Event()

    async def hang(_: Received, session: Session) -> None:
        arrived.set()
        await session.wait_closed_by_peer()

    upstream.script = hang
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(), key=gateway.pushed.key, headers={"idempotency-key": "k"}))
        await arrived.wait()
    await until_free(gateway)
    for _ in range(20):  # leave at any moment, also before Redis has said whose claim it is
        async with connect(gateway.port) as client:
            await client.send(request_bytes(chat(), key=gateway.pushed.key, headers={"idempotency-key": "k"}))
            await asyncio.sleep(0)
    await until_free(gateway)  # the backend hangs until then: a client that has left unnoticed is not answered
    upstream.script = answer_politely
    async with asyncio.timeout(10):
        while (
            answer := await ask_with(gateway, "k")
        ).status == 409:  # the last may have waited to be accepted until now
            await asyncio.sleep(0.05)
    assert answer.status == 200


async def test_streams_and_keys_of_other_projects_have_nothing_to_do_with_it(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    assert (await ask_with(gateway, "k", chat(stream=True))).text == "Hello"
    assert (await ask_with(gateway, "k", chat(stream=True, user="x"))).text == "Hello"
    assert (await ask_with(gateway, "k")).status == 200
    await gateway.pushed.tenants(project="project-2")
    other = await gateway.pushed.api_key(generate_key(), key_id="key-2", project_id="project-2")
    answer = await ask_with(gateway, "k", chat(user="x"), api_key=other)
    assert answer.status == 200
    assert "idempotency-replayed" not in answer.headers


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_has_1_to_255_characters(gateway: RunningGateway, key: str) -> None:
    answer = await ask_with(gateway, key)
    assert (answer.status, answer.error["param"]) == (400, "idempotency-key")
    assert (await ask_with(gateway, "k" * 255)).status == 200


async def test_a_large_answer_is_made_anew(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_idempotency_bytes_max=50)
    await gateway.until_ready()
    for _ in range(2):
        assert (await ask_until_replayed(gateway, "k")).status == 200
    assert len(upstream.received) == 2


async def test_without_redis_nothing_is_served_twice(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    assert (await ask_with(gateway, "k")).status == 200
    gateway.worker.gateway.redis.is_ready = False
    try:
        answer = await ask_with(gateway, "k")
    finally:
        gateway.worker.gateway.redis.is_ready = True
    assert (answer.status, answer.error["code"]) == (503, "policy_store_unavailable")
    assert len(upstream.received) == 1
