"""Comments in silent streams: only where asked for, only between events, and no SDK notices."""

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, budget, until
from tests.gateway.raw_client import chat, connect, request_bytes
from tests.gateway.scripted_upstream import USAGE, Received, ScriptedUpstream, Session, chunk, run_upstream, usage_chunk

COMMENT = b": keep-alive\n"
QUIET_S = 0.1
EVENTS = [chunk("Hel", role="assistant"), chunk("lo"), chunk(finish="stop")]


@pytest.fixture
async def gateway(start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream) -> RunningGateway:
    await pushed.everything(upstream.url)
    running = await start_gateway(gateway_stream_comment_s=QUIET_S)
    await running.until_ready()
    return running


def hesitates(release: asyncio.Event | None = None) -> Any:
    """A backend that is silent before its first event, in the middle of one, and between two."""

    async def wait() -> None:
        await (asyncio.sleep(QUIET_S * 4) if release is None else release.wait())

    async def script(_: Received, session: Session) -> None:
        await session.begin_stream()
        await wait()
        event = b"data: " + json.dumps(chunk("Hel", role="assistant")).encode() + b"\n\n"
        await session.chunk(event[:30])
        await wait()
        await session.chunk(event[30:])
        await session.event(chunk("lo"))
        await wait()
        await session.event(chunk(finish="stop"))
        await session.event(usage_chunk())
        await session.end_stream()

    return script


async def test_13_comments_come_while_a_backend_is_silent_and_never_inside_an_event(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = hesitates()
    for version in ("1.1", "1.0"):
        async with connect(gateway.port) as client:
            await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key, version=version))
            answer = await client.read_answer()
        assert answer.status == 200
        before, middle, end = answer.body.split(b"\n\n", 2)
        assert before.startswith(COMMENT)
        assert not middle.startswith(COMMENT)
        assert end.startswith(COMMENT)
        expected = [*(b"data: " + json.dumps(c).encode() for c in EVENTS), b"data: [DONE]", b""]
        assert answer.body.replace(COMMENT, b"").split(b"\n\n") == expected
    assert (await gateway.records(2))[0]["output_tokens"] == USAGE["completion_tokens"]
    await gateway.until_nothing_is_held()


async def test_13_the_python_sdk_does_not_notice(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.script = hesitates()
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.pushed.key) as sdk:
        options: Any = {"include_usage": True}
        stream = await sdk.chat.completions.create(model="m", messages=messages, stream=True, stream_options=options)
        chunks = [received async for received in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
        assert len(chunks) == 4
        async with sdk.chat.completions.stream(model="m", messages=messages) as helper:
            assert (await helper.get_final_completion()).choices[0].message.content == "Hello"


async def test_a_backend_that_fails_after_the_first_comment_is_an_error_event(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def die(_: Received, session: Session) -> None:
        await session.begin_stream()
        await asyncio.sleep(QUIET_S * 4)
        session.abort()

    upstream.script = die
    await gateway.pushed.budgets(budget(10**12))
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        answer = await client.read_answer()
    assert answer.status == 200
    error, end = answer.body.replace(COMMENT, b"").decode().split("\n\n")[:2]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "upstream_failed"
    assert end == "data: [DONE]"
    await gateway.until_nothing_is_held()
    assert gateway.publisher.records == []  # nobody got anything, nobody pays
    assert await gateway.pushed.counter("b1") == (0, 0)


async def test_a_backend_that_has_not_begun_to_answer_may_still_be_passed_over(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def fail(_: Received, session: Session) -> None:
        await asyncio.sleep(QUIET_S * 4)
        await session.send_json({"error": {"message": "no"}}, status=400)

    upstream.script = fail
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        assert (await client.read_answer()).status == 400


async def test_a_client_that_leaves_after_a_comment_pays_for_its_input(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def think(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.wait_closed_by_peer()

    upstream.script = think
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.reader.readuntil(COMMENT)
        client.abort()
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["estimated"], record["output_tokens"]) == ("cancelled", True, 0)
    assert record["input_tokens"] > 0
    await gateway.until_nothing_is_held()


async def test_the_time_to_the_first_token_is_not_that_to_a_comment(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.script = hesitates()
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_answer()
    (record,) = await gateway.records(1)
    assert record["ttft_ms"] > QUIET_S * 6 * 1000


async def test_a_client_that_takes_nothing_is_sent_no_comments(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def flood(_: Received, session: Session) -> None:
        await session.begin_stream()
        while True:
            await session.event(chunk("x" * 50_000))

    upstream.script = flood
    async with connect(gateway.port, buffer_bytes=65_536) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_head()
        (connection,) = gateway.worker.connections
        await until(lambda: connection._is_paused)
        size = -1
        while size != connection._transport.get_write_buffer_size():  # what was on its way has come
            size = connection._transport.get_write_buffer_size()
            await asyncio.sleep(QUIET_S)
        await asyncio.sleep(QUIET_S * 4)
        assert connection._transport.get_write_buffer_size() == size
    await gateway.until_nothing_is_held()


async def test_a_draining_gateway_ends_a_stream_that_has_only_comments_with_an_error(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    release = asyncio.Event()
    upstream.script = hesitates(release)
    async with connect(gateway.port) as client:
        await client.send(request_bytes(chat(stream=True), key=gateway.pushed.key))
        await client.read_head()
        await gateway.worker.drain()
        body = b"".join([part async for part in client.read_chunks()])
    assert b'"code":"draining"' in body
    assert body.endswith(b"data: [DONE]\n\n")
    release.set()


async def test_whole_answers_have_no_comments(gateway: RunningGateway) -> None:
    async def slow(_: Received, session: Session) -> None:
        await asyncio.sleep(QUIET_S * 3)
        await session.send_json({"choices": [], "usage": USAGE})

    async with run_upstream(slow) as upstream:
        await gateway.pushed.everything(upstream.url)
        snapshots = gateway.worker.gateway.snapshots
        await until(lambda: snapshots.routes is not None and snapshots.routes.version == 2)
        async with connect(gateway.port) as client:
            await client.send(request_bytes(chat(), key=gateway.pushed.key))
            assert b"keep-alive" not in (await client.read_answer()).body
