"""A backend that lies, stammers or attacks: one client's bytes never reach another, and nothing hangs or leaks."""

import asyncio
import gzip
import json

import pytest

from ias.contracts.routes import Backend
from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, budget
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import (
    Received,
    Script,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
)

JSON = b"content-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = json.dumps(completion()).encode()
OTHERS = json.dumps(completion(id="of-another-client")).encode()


def whole(body: bytes = BODY, *headers: bytes) -> bytes:
    more = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 200 OK\r\n" + JSON + more + b"content-length: %d\r\n\r\n" % len(body) + body


def frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: str | None = "a", **more: object) -> bytes:
    return b"data: " + json.dumps(chunk(content, **more)).encode() + b"\n\n"  # type: ignore[arg-type]


def stream(*payloads: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return SSE + b"".join(frame(payload) for payload in payloads) + end


DONE = event(None, finish="stop") + b"data: [DONE]\n\n"


@pytest.fixture(autouse=True)
async def _budgeted(pushed: Pushed) -> None:
    await pushed.budgets(budget(10**15))


def says(data: bytes, *, closes: bool = False, one_by_one: bool = False) -> Script:
    async def script(_: Received, session: Session) -> None:
        for part in [data[i : i + 1] for i in range(len(data))] if one_by_one else [data]:
            await session.send(part)
            if one_by_one:
                await asyncio.sleep(0)
        if closes:
            session.writer.close()

    return script


EXTRA = {
    "a second answer": whole() + whole(OTHERS),
    "a second answer after a chunked one": b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n"
    + frame(BODY) + b"0\r\n\r\n" + whole(OTHERS),
    "bytes after the length": whole() + b"{}",
    "a line end after the answer": whole() + b"\r\n",
    "a body with 204": b"HTTP/1.1 204 No Content\r\n" + JSON + b"content-length: %d\r\n\r\n" % len(OTHERS) + OTHERS,
    "a body with 304": b"HTTP/1.1 304 Not Modified\r\n" + JSON + b"content-length: %d\r\n\r\n" % len(OTHERS) + OTHERS,
    "an error and an answer": b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}" + whole(OTHERS),
    "a stream and an answer": stream(event(), DONE) + whole(OTHERS),
}  # fmt: skip


@pytest.mark.parametrize("data", EXTRA.values(), ids=EXTRA)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_comes_behind_an_answer_reaches_nobody(
    gateway: RunningGateway, upstream: ScriptedUpstream, data: bytes, streamed: bool
) -> None:
    upstream.script = says(data)
    first = await ask(gateway.port, chat(stream=streamed), key=gateway.pushed.key)
    assert first.status in (200, 500, 502)
    assert b"of-another-client" not in first.body
    upstream.script = answer_politely
    for stream_next in (False, True):
        answer = await ask(gateway.port, chat(stream=stream_next), key=gateway.pushed.key)
        assert answer.status == 200
        assert b"of-another-client" not in answer.body
    await gateway.until_nothing_is_held()


async def test_what_comes_late_behind_an_answer_closes_the_connection(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def script(_: Received, session: Session) -> None:
        await session.send(whole())
        await asyncio.sleep(0.05)
        await session.send(whole(OTHERS))
        await session.wait_closed_by_peer()

    upstream.script = script
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).document == completion()
    await asyncio.sleep(0.2)
    upstream.script = answer_politely
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).document == completion()


AMBIGUOUS = {
    "two lengths": whole(BODY, b"content-length: 5"),
    "two equal lengths": whole(BODY, b"content-length: %d" % len(BODY)),
    "a length and chunks": whole(frame(BODY) + b"0\r\n\r\n", b"transfer-encoding: chunked"),
    "a negative length": b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: -5\r\n\r\n" + BODY,
    "a huge length": b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 99999999999999999999999\r\n\r\n" + BODY,
    "other encodings": whole(BODY, b"transfer-encoding: gzip, chunked"),
    "a NUL in a header": whole(BODY, b"x-a: b\x00c"),
    "a folded header": whole(BODY, b"x-a: b\r\n c"),
    "no version": b"200 OK\r\n\r\n" + BODY,
    "HTTP/9": b"HTTP/9.9 200 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nwhatever",
    "a bare line end": b"HTTP/1.1 200 OK\n" + JSON + b"content-length: 2\n\n{}",
    "a status of no number": b"HTTP/1.1 2x0 OK\r\n" + JSON + b"content-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_could_be_read_in_two_ways_is_502(
    gateway: RunningGateway, upstream: ScriptedUpstream, data: bytes, streamed: bool
) -> None:
    upstream.script = says(data, closes=True)
    answer = await ask(gateway.port, chat(stream=streamed), key=gateway.pushed.key)
    assert (answer.status, answer.error["type"]) == (502, "server_error")
    await gateway.until_nothing_is_held()


GOOD = {
    "an early hint": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + whole(),
    "many interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + whole(),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + JSON + b"\r\n" + BODY,
    "no length": b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + BODY,
    "a trailer": b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\ntrailer: x\r\n\r\n" + frame(BODY)
    + b"0\r\nx: y\r\nset-cookie: a=b\r\n\r\n",
    "chunk extensions": b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\n\r\n"
    % (len(BODY), BODY),
    "a stream with a trailer": stream(event("Hello"), DONE, end=b"0\r\nx: y\r\n\r\n"),
    "a stream in one chunk": stream(event("Hello") + DONE),
    "a stream with a length": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    % len(event("Hello") + DONE) + event("Hello") + DONE,
    "a stream to the end of the connection": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    + event("Hello") + DONE,
    "oddly capitalised": stream(event("Hello"), DONE).replace(b"content-type", b"CONTENT-TYPE").replace(
        b"transfer-encoding: chunked", b"Transfer-Encoding:   Chunked  "),
}  # fmt: skip


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("name", GOOD)
async def test_an_unusual_answer_is_understood_at_any_split(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str, one_by_one: bool
) -> None:
    streamed = "stream" in name or name == "oddly capitalised"
    upstream.script = says(GOOD[name], closes=True, one_by_one=one_by_one)
    answer = await ask(gateway.port, chat(stream=streamed), key=gateway.pushed.key)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    if streamed:
        assert answer.text == "Hello"
    else:
        assert answer.document == completion()
    await gateway.until_nothing_is_held()


async def test_interim_answers_without_end_are_no_answer(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    async def script(_: Received, session: Session) -> None:
        while True:
            await session.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            await asyncio.sleep(0.01)

    upstream.script = script
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_total_timeout_s=1.0)
    await gateway.until_ready()
    assert (await ask(gateway.port, chat(), key=pushed.key)).status in (502, 504)
    await gateway.until_nothing_is_held()


@pytest.mark.parametrize("keeps", [False, True], ids=["closes", "keeps the connection"])
@pytest.mark.parametrize("status", [200, 413])
async def test_an_answer_before_the_request_was_read_leaves_no_body_behind(
    gateway: RunningGateway, keeps: bool, status: int
) -> None:
    """The rest of the first request's body must not be read as the next request, or be answered to the next client."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append((await reader.readuntil(b"\r\n")).strip())
                await reader.readuntil(b"\r\n\r\n")
                head = b"HTTP/1.1 %d X\r\n" % status + JSON
                writer.write(head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
                await writer.drain()
                if not keeps:
                    return
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await gateway.pushed.everything(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        gateway.pushed.versions += 1
        await gateway.pushed.everything(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        snapshots = gateway.worker.gateway.snapshots
        async with asyncio.timeout(5):
            while snapshots.routes is None or snapshots.routes.version != gateway.pushed.versions:
                await asyncio.sleep(0.01)
        smuggled = "POST /v1/chat/completions HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 2\\r\\n\\r\\n{}" * 3000
        large = chat(messages=[{"role": "user", "content": smuggled + "x" * 8_000_000}])
        for body in (large, chat()):
            answer = await ask(gateway.port, body, key=gateway.pushed.key)
            assert answer.status in (status, 502)
        await gateway.until_nothing_is_held()
    assert set(requests) == {b"POST /v1/chat/completions HTTP/1.1"}


ODD_EVENTS = {
    "NUL in data": b'data: {"choices":[{"index":0,"delta":{"content":"a\x00b"}}]}\n\n',
    "CR in data": b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\rdata: x\r\r',
    "an end of chunks inside data": b'data: {"choices":[{"index":0,"delta":{"content":"0\\r\\n\\r\\n"}}]}\n\n',
    "a smuggled answer": b"data: HTTP/1.1 200 OK\r\n\r\n",
    "an early end": b"data: [DONE]\n\n" + event("never"),
    "an end in pieces": b"data: [DO\ndata: NE]\n\n",
    "fields without a name": b":x\n: y\nid: \x00\nretry: 0\nevent:\n\n",
    "no field at all": b"garbage\n\n\n\n",
    "half JSON": b'data: {"model": "m", "choices"\n\n',
    "JSON with bad escapes": b'data: {"mo\\qdel":"m","choices":[],"usage":{"x":1}}\n\n',
    "usage of nonsense": b'data: {"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1e30}}\n\n',
    "usage of strings": b'data: {"choices":[],"usage":"many"}\n\n',
    "usage of arrays": b'data: {"choices":[{"index":0}],"usage":[]}\n\n',
    "deep JSON": b'data: {"usage":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n",
    "not UTF-8": b'data: {"usage":"\xff\xfe"}\n\n',
    "an error of no shape": b'data: {"error":[1,2]}\n\n',
    "an error of its own name": b'event: error\ndata: {"a":\n\n',
}


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("odd", ODD_EVENTS.values(), ids=ODD_EVENTS)
async def test_odd_events_neither_break_the_stream_nor_the_worker(
    gateway: RunningGateway, upstream: ScriptedUpstream, odd: bytes, renamed: bool
) -> None:
    if renamed:
        backend = {"id": "b", "url": upstream.url, "upstream_model": "m-internal", "vllm_extensions": True}
        await gateway.pushed.routes({"m": {"backends": (Backend(**backend),)}})  # type: ignore[arg-type]
        snapshots = gateway.worker.gateway.snapshots
        async with asyncio.timeout(5):
            while snapshots.routes is None or snapshots.routes.version != gateway.pushed.versions:
                await asyncio.sleep(0.01)
    for data in (stream(event("a"), odd, DONE), stream(event("a") + odd + DONE), stream(odd, DONE)):
        upstream.script = says(data)
        answer = await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)
        assert answer.status in (200, 502)
        if answer.status == 200:
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert answer.body.count(b"data: [DONE]") == 1
            assert "never" not in answer.body.decode("utf-8", "replace")
            assert all(block.startswith((b"data: ", b"event: ")) for block in answer.body.split(b"\n\n") if block)
    upstream.script = answer_politely
    assert (await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)).text == "Hello"
    await gateway.until_nothing_is_held()


HEADERS = {
    "x-request-id": "stolen",
    "content-encoding": "br",
    "connection": "close, x-evil",
    "location": "http://evil",
    "set-cookie": "session=1",
    "access-control-allow-origin": "*",
    "x-ias-denied-by": "budget:x",
    "openai-processing-ms": "999999",
}


async def test_no_header_of_a_backend_reaches_a_client(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def script(_: Received, session: Session) -> None:
        lines = "".join(f"{n}: {v}\r\n" for n, v in HEADERS.items() if n not in ("content-encoding", "connection"))
        await session.send_json({"error": {"message": "a\r\nset-cookie: b=c", "code": "x\r\ny: z"}}, 400, headers=lines)

    upstream.script = script
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.status == 400
    assert not {"location", "set-cookie", "access-control-allow-origin", "x-ias-denied-by", "y"} & set(answer.headers)
    assert answer.headers["x-request-id"] != "stolen"
    assert answer.headers["openai-processing-ms"] != "999999"


async def test_a_huge_answer_is_cut_off_at_the_limit(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    bomb = gzip.compress(b"[" + b" " * 20_000_000 + b"]")
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_answer_bytes_max=1_000_000, gateway_event_bytes_max=100_000)
    await gateway.until_ready()
    endless = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 200_000
    for data, streamed in (
        (whole(b"{" + b" " * 2_000_000 + b"}"), False),
        (whole(bomb, b"content-encoding: gzip"), False),
        (SSE + frame(endless), True),
        (SSE + b"ffffffffffffffff\r\n", True),
        (SSE + b"5;" + b"x" * 100_000, True),
        (stream(DONE, end=b"0\r\n" + b"x: y\r\n" * 100_000), True),
    ):
        upstream.script = says(data, closes=True)
        answer = await ask(gateway.port, chat(stream=streamed), key=pushed.key)
        assert answer.status == 502 or (streamed and answer.events[-1] == "[DONE]")
    await gateway.until_nothing_is_held()
