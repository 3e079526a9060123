"""Usage of engines that report none is estimated by what they sent, never above what was reserved."""

import json
from typing import Any

import pytest

from tests.gateway.platform import INPUT_PRICE, OUTPUT_PRICE, RunningGateway, budget
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk, completion

MILLION = 1_000_000


def role(index: int = 0) -> dict[str, Any]:
    """What opens a choice at llama-cpp-python's server."""
    return {**chunk(), "choices": [{"index": index, "delta": {"role": "assistant"}, "finish_reason": None}]}


def text(content: str, finish: str | None = None) -> dict[str, Any]:
    return {**chunk(), "choices": [{"index": 0, "text": content, "finish_reason": finish, "logprobs": None}]}


def streams(upstream: ScriptedUpstream, events: list[dict[str, Any]], *, at_once: bool, dies: bool = False) -> None:
    """Let the backend stream these events and nothing of usage, each by itself or all in one segment."""

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        parts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
        if at_once:
            await session.send(b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts))
        else:
            for part in parts:
                await session.chunk(part)
        if dies:
            session.writer.close()
        else:
            await session.end_stream()

    upstream.script = script


CHAT = [role(), *(chunk(word) for word in ["one", "two", "three"]), chunk(finish="stop")]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("events", "body", "tokens"),
    [
        (CHAT, chat(), 3),
        ([role(), chunk("one"), chunk("two", finish="stop")], chat(), 2),
        ([chunk("one"), chunk("two"), chunk(finish="stop")], chat(), 2),
        ([role(0), role(1), chunk("a"), chunk("b", index=1), chunk(finish="stop"), chunk(finish="stop", index=1)],
         chat(n=2), 2),
        ([role(), chunk(finish="stop")], chat(), 0),
        (CHAT, chat(max_tokens=2), 2),
        ([text("one"), text("two"), text("", "stop")], {"model": "m", "prompt": "Hi"}, 2),
        ([text("one"), text("two", "length")], {"model": "m", "prompt": "Hi"}, 2),
    ],
    ids=["chat", "text-in-the-last", "no-role", "n2", "empty", "bounded", "completion", "completion-text-in-the-last"],
)  # fmt: skip
async def test_each_event_with_content_is_a_token(
    gateway: RunningGateway,
    upstream: ScriptedUpstream,
    events: list[dict[str, Any]],
    body: dict[str, Any],
    *,
    tokens: int,
    at_once: bool,
) -> None:
    streams(upstream, events, at_once=at_once)
    path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
    answer = await ask(gateway.port, {**body, "stream": True}, key=gateway.pushed.key, path=path)
    assert answer.status == 200
    (record,) = await gateway.records(1)
    assert (record["output_tokens"], record["estimated"]) == (tokens, True)


async def test_of_named_events_only_deltas_are_tokens(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        for name in ("created", "output_text.delta", "output_text.delta", "output_text.done", "completed"):
            await session.chunk(f'event: response.{name}\ndata: {{"type":"response.{name}"}}\n\n'.encode())
        await session.end_stream(done=False)

    upstream.script = script
    body = {"model": "m", "input": "Hi", "stream": True}
    assert (await ask(gateway.port, body, key=gateway.pushed.key, path="/v1/responses")).status == 200
    (record,) = await gateway.records(1)
    assert (record["output_tokens"], record["estimated"]) == (2, True)


async def test_a_stream_that_breaks_off_has_no_closing_event_to_subtract(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    streams(upstream, CHAT[:-1], at_once=False, dies=True)
    await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("failed", 3, True)


async def test_a_whole_answer_is_estimated_by_its_text_alone(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(_: Received, session: Session) -> None:
        answer = completion(padding="x" * 4000)
        del answer["usage"]
        await session.send_json(answer)

    upstream.script = script
    await ask(gateway.port, chat(), key=gateway.pushed.key)
    (record,) = await gateway.records(1)
    assert (record["output_tokens"], record["estimated"]) == (2, True)  # "Hello"


@pytest.mark.parametrize("count", [2**31, 10**40])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_report_of_more_tokens_than_can_be_booked_is_none(
    gateway: RunningGateway, upstream: ScriptedUpstream, *, stream: bool, count: int
) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count}

    async def whole(_: Received, session: Session) -> None:
        await session.send_json(completion(usage=usage))

    if stream:
        streams(upstream, [*CHAT, {**chunk(), "choices": [], "usage": usage}], at_once=False)
    else:
        upstream.script = whole
    assert (await ask(gateway.port, chat(stream=stream), key=gateway.pushed.key)).status == 200
    (record,) = await gateway.records(1)
    assert record["estimated"]
    assert max(record["input_tokens"], record["output_tokens"]) < 1_000
    await gateway.until_nothing_is_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_estimate_costs_no_more_than_was_reserved(
    gateway: RunningGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    await gateway.pushed.budgets(budget(1_000 * MILLION))
    answer = completion(choices=[{"index": 0, "finish_reason": "stop", "message": {"content": "x" * 5000}}])
    del answer["usage"]

    async def whole(_: Received, session: Session) -> None:
        await session.send_json(answer)

    if stream:
        streams(upstream, [role(), *[chunk("a")] * 50, chunk(finish="stop")], at_once=True)
    else:
        upstream.script = whole
    reply = await ask(gateway.port, chat(stream=stream, max_tokens=3), key=gateway.pushed.key)
    assert reply.status == 200
    (record,) = await gateway.records(1)
    assert record["output_tokens"] == 3
    expected = (record["input_tokens"] * INPUT_PRICE + 3 * OUTPUT_PRICE) // MILLION
    assert record["cost_nano_usd"] == expected <= record["decision"]["reserved_nano_usd"]
    await gateway.until_quiet()
    assert await gateway.pushed.counter("b1") == (expected, 0)
    assert gateway.worker.gateway.metrics.reservations_exceeded == 0
