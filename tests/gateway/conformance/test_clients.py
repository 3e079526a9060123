"""Clients over time: repeated, revoked, too many to count. Numbers are those of the list in README.md."""

import asyncio

from tests.gateway.platform import RunningGateway, budget, until
from tests.gateway.raw_client import ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk


async def test_53_an_sdks_count_of_retries_changes_no_bill(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    await gateway.pushed.budgets(budget(10**12))
    headers = {"x-stainless-retry-count": "1", "x-stainless-read-timeout": "600"}
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key, headers=headers)).status == 200
    await gateway.until_nothing_is_held()
    (record,) = await gateway.records(1)
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)
    assert not [name for name in upstream.received[0].headers if name.startswith("x-stainless")]


async def test_80_a_key_revoked_in_mid_stream_finishes_its_stream_and_no_more(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    revoked = asyncio.Event()

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await revoked.wait()
        await session.event(chunk("b", finish="stop"))
        await session.end_stream()

    upstream.script = script
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        reading = asyncio.create_task(client.read_answer())
        await until(lambda: len(upstream.received) == 1)
        await gateway.pushed.api_key(status="revoked")
        snapshots = gateway.worker.gateway.snapshots
        await until(lambda: not snapshots._remembered)
        assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).error["code"] == "invalid_api_key"
        revoked.set()
        assert (await reading).text == "ab"
        await client.send(request_bytes(chat(), key=gateway.pushed.key))
        assert (await client.read_answer()).status == 401
    (record,) = await gateway.records(1)
    assert record["outcome"] == "completed"
