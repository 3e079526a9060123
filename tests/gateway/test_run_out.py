"""A backend that makes more than a hard budget holds for it is stopped; the stream ends properly, and the books balance."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from ias.contracts.spending import BudgetRaise
from tests.gateway.platform import INPUT_PRICE, OUTPUT_PRICE, RunningGateway, budget
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk, usage_chunk

LIMIT = 10**12


def events_of(body: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def endless(*, counts: bool, stops_after: int = 100_000) -> Any:
    """A backend that does not care for `max_tokens`."""

    async def script(received: Received, session: Session) -> None:
        assert received.document["max_tokens"] == 5
        await session.begin_stream()
        for made in range(1, stops_after):
            usage = {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made}
            await session.event(chunk("x", **({"usage": usage} if counts else {})))
            await asyncio.sleep(0.005)
        await session.event(chunk(finish="stop"))
        await session.end_stream()

    return script


@pytest.mark.parametrize("counts", [True, False])
async def test_a_stream_that_outgrows_its_reservation_ends_by_length(
    gateway: RunningGateway, upstream: ScriptedUpstream, counts: bool
) -> None:
    upstream.script = endless(counts=counts)
    await gateway.pushed.budgets(budget(LIMIT))
    body = chat(stream=True, max_tokens=5, stream_options={"include_usage": True})
    answer = await ask(gateway.port, body, key=gateway.pushed.key)
    *made, last, usage = events_of(answer.body)
    assert (last["id"], last["object"], last["model"]) == ("chatcmpl-1", "chat.completion.chunk", "m")
    assert [choice["finish_reason"] for choice in last["choices"]] == ["length"]
    assert last["ias"]["code"] == "budget_exhausted"
    assert (usage["choices"], usage["usage"]["completion_tokens"] > 0) == ([], True)
    [record] = await gateway.records(1)
    assert (record["outcome"], record["status"], record["decision"]["cut_off"]) == ("completed", 200, True)
    if counts:
        assert record["output_tokens"] == usage["usage"]["completion_tokens"] >= len(made)
        assert record["cost_nano_usd"] == -(-(10 * INPUT_PRICE + record["output_tokens"] * OUTPUT_PRICE) // 1_000_000)
    await gateway.until_nothing_is_held()
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)


@pytest.mark.parametrize("mode", ["soft", "alert", None])
async def test_where_no_hard_budget_holds_it_a_stream_goes_on(
    gateway: RunningGateway, upstream: ScriptedUpstream, mode: str | None
) -> None:
    upstream.script = endless(counts=True, stops_after=300)
    await gateway.pushed.budgets(*([budget(LIMIT, mode=mode)] if mode else []))
    answer = await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)
    assert b'"ias"' not in answer.body
    assert answer.body.count(b"data: {") >= 299


@pytest.mark.parametrize("raised", [True, False])
async def test_what_was_reserved_is_served_though_the_limit_falls_meanwhile_and_nothing_more_is(
    gateway: RunningGateway, upstream: ScriptedUpstream, raised: bool
) -> None:
    """A raise that ends, or an admin who lowers the limit, in the middle of a stream."""
    fallen = budget(1)

    async def script(received: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("x"))
        await gateway.pushed.budgets(fallen)
        await asyncio.sleep(1.5)  # the worker looks once a second
        await session.event(chunk(finish="stop"))
        await session.event(usage_chunk())
        await session.end_stream()

    upstream.script = script
    wide = BudgetRaise(amount_nano_usd=LIMIT, expires_at=2**33)
    await gateway.pushed.budgets(msgspec.structs.replace(fallen, raises=(wide,)) if raised else budget(LIMIT))
    answer = await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)
    assert b'"ias"' not in answer.body
    [record] = await gateway.records(1)
    assert record["outcome"] == "completed"
    await gateway.until_nothing_is_held()
    assert await gateway.pushed.counter("b1") == (record["cost_nano_usd"], 0)
    refused = await ask(gateway.port, chat(stream=True, max_tokens=5), key=gateway.pushed.key)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
