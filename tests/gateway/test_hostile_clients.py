"""A client that lies, stammers or attacks: it gets an answer or is cut off, and other clients notice nothing."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, budget, until
from tests.gateway.raw_client import Answer, RawClient, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import (
    Received,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
)

PATH = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"


async def read_all(client: RawClient) -> bytes:
    async with asyncio.timeout(10):
        return await client.reader.read()


SMUGGLED = {
    "chunks behind a length of zero": b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
    "a chunked look-alike": b"transfer-encoding: xchunked\r\ncontent-length: 3\r\n\r\nabc",
    "chunked with a vertical tab": b"transfer-encoding: \x0bchunked\r\n\r\n",
    "chunked twice": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": b"transfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc",
    "chunked, then something": b"transfer-encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "an underscore": b"transfer_encoding: chunked\r\ncontent-length: 0\r\n\r\n",
    "a hexadecimal length": b"content-length: 0x5\r\n\r\nabcde",
    "a length with a comma": b"content-length: 3, 3\r\n\r\nabc",
    "a length of spaces": b"content-length:  \r\n\r\n",
    "a huge length": b"content-length: 18446744073709551617\r\n\r\n",
    "a header without a colon": b"content-length 3\r\n\r\nabc",
    "a space before the colon": b"content-length : 3\r\n\r\nabc",
    "a line feed alone": b"x: y\ncontent-length: 3\n\nabc",
    "a carriage return alone": b"x: y\rcontent-length: 3\r\n\r\nabc",
    "a NUL in a name": b"content\x00-length: 3\r\n\r\nabc",
    "a chunk of negative size": b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk of huge size": b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk without its line end": b"transfer-encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n",
    "an obsolete fold": b"x: y\r\n content-length: 3\r\n\r\n",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED)
async def test_a_second_request_hidden_in_the_first_is_never_served(
    gateway: RunningGateway, upstream: ScriptedUpstream, rest: bytes
) -> None:
    """The first one is sent without a key: the hidden one, which has it, must not be served in anybody's reading."""
    hidden = request_bytes(chat(user="hidden"), key=gateway.pushed.key)
    async with connect(gateway.port) as client:
        await client.send(PATH + rest + hidden)
        client.writer.write_eof()
        answers = await read_all(client)
    statuses = [int(part[1:4]) for part in answers.split(b"HTTP/1.1")[1:]]
    allowed_second = rest.startswith((b"transfer_encoding", b"content-length:  \r\n"))  # these end where they seem to
    if not allowed_second:
        assert upstream.received == []
        assert statuses
        assert set(statuses) <= {400, 401, 408, 413, 415}
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200


BAD_NAMES = [
    "m\r\nx-evil: 1",
    "m\x00",
    "../../admin",
    "m' OR 1=1",
    "{jndi:ldap://x}",
    "m" * 100_000,
    "%0d%0aset-cookie: a=b",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
async def test_no_name_of_a_model_gets_into_a_head(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    answer = await ask(gateway.port, chat(model=name), key=gateway.pushed.key)
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert not {"x-evil", "set-cookie"} & set(answer.headers)
    assert len(answer.body) < 2000
    quoted = "".join(f"%{byte:02x}" for byte in name.encode()[:10_000])
    for path in (f"/v1/models/{quoted}", f"/openai/deployments/{quoted}/chat/completions"):
        answer = await ask(
            gateway.port, chat(), method="GET" if "models" in path else "POST", path=path, key=gateway.pushed.key
        )
        assert answer.status == 404
        assert not {"x-evil", "set-cookie"} & set(answer.headers)
    assert upstream.received == []


async def test_names_that_clients_make_up_are_not_remembered(gateway: RunningGateway) -> None:
    for i in range(50):
        await ask(gateway.port, chat(model=f"made-up-{i}"), key=gateway.pushed.key)
        await ask(gateway.port, chat(), key=gateway.pushed.key, path=f"/v1/made-up-{i}")
    assert "made-up" not in gateway.metrics()
    assert len(gateway.worker.gateway.metrics._tallies) < 5


async def test_what_a_backend_calls_its_errors_is_remembered_up_to_a_limit(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    metrics = gateway.worker.gateway.metrics
    for i in range(1000):
        metrics.count_refusal(f"made-up-{i}")
    assert len(metrics._refusals) < 300
    assert sum(metrics._refusals.values()) == 1000


async def test_a_hundred_pipelined_requests_of_every_kind_are_answered_in_order(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def echo(received: Received, session: Session) -> None:
        await asyncio.sleep(0.001 * (len(received.body) % 3))
        if received.document.get("stream"):
            await session.begin_stream()
            await session.event(chunk(received.document["user"], finish="stop"))
            await session.end_stream()
        else:
            await session.send_json(completion(id=received.document["user"]))

    upstream.script = echo
    key = gateway.pushed.key
    kinds = [
        lambda i: request_bytes(chat(user=f"u{i}"), key=key),
        lambda i: request_bytes(chat(user=f"u{i}", stream=True), key=key),
        lambda i: request_bytes(chat(user=f"u{i}")),
        lambda i: request_bytes(method="GET", path=f"/v1/models?{i}", key=key),
    ]
    async with connect(gateway.port) as client:
        sending = asyncio.create_task(client.send(b"".join(kinds[i % 4](i) for i in range(100))))
        for i in range(100):
            answer = await client.read_answer()
            assert answer.status == (401 if i % 4 == 2 else 200), i
            if i % 4 == 0:
                assert answer.document["id"] == f"u{i}"
            if i % 4 == 1:
                assert answer.text == f"u{i}"
        await sending
    await gateway.until_nothing_is_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_one_byte_at_a_time_is_understood(gateway: RunningGateway, stream: bool) -> None:
    async with connect(gateway.port) as client:
        for byte in request_bytes(chat(stream=stream), key=gateway.pushed.key) * 2:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await client.read_answer()).status == 200


async def test_clients_that_never_read_big_answers_are_cut_off_and_hold_nothing(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    async def big(_: Received, session: Session) -> None:
        await session.send_json(completion(padding="x" * 20_000_000))

    upstream.script = big
    await pushed.everything(upstream.url)
    await pushed.budgets(budget(10**15))
    gateway = await start_gateway(gateway_write_timeout_s=0.5)
    await gateway.until_ready()
    async with connect(gateway.port, buffer_bytes=1024) as client:
        await client.send(request_bytes(chat(), key=pushed.key) * 5)
        await until(lambda: len(gateway.worker.connections) == 1)
        await until(lambda: not gateway.worker.connections)
    assert len(upstream.received) < 3  # not more was asked for than was taken
    await gateway.until_nothing_is_held()
    (first, *_) = await gateway.records(1)
    assert first["outcome"] == "completed"


async def test_connections_that_say_nothing_or_half_a_request_are_ended(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_header_timeout_s=0.5, gateway_body_timeout_s=0.5)
    await gateway.until_ready()
    whole = request_bytes(chat(), key=pushed.key)
    async with asyncio.TaskGroup() as group:
        for size in range(0, len(whole), 7):
            group.create_task(_send_and_wait(gateway, whole[:size]))
    await gateway.until_nothing_is_held()
    assert upstream.received == []


async def _send_and_wait(gateway: RunningGateway, data: bytes) -> None:
    async with connect(gateway.port) as client:
        await client.send(data)
        assert (await read_all(client)).startswith((b"HTTP/1.1 4", b""))


async def test_leaving_at_every_stage_holds_nothing(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def slowly(received: Received, session: Session) -> None:
        await asyncio.sleep(0.003)
        await answer_politely(received, session)

    upstream.script = slowly
    await gateway.pushed.budgets(budget(10**15))
    for stream in (False, True):
        request = request_bytes(chat(stream=stream), key=gateway.pushed.key)
        for turns in range(40):
            async with connect(gateway.port) as client:
                await client.send(request)
                for _ in range(turns):
                    await asyncio.sleep(0.0003)
                if turns % 2:
                    client.abort()
    await gateway.until_nothing_is_held()
    await gateway.records(gateway.worker.gateway.spool.appended)
    settled, _ = await gateway.pushed.counter("b1")
    assert settled == sum(record["cost_nano_usd"] for record in gateway.publisher.records)


PIECES = [
    b"POST ", b"GET ", b"/v1/chat/completions", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"host: g\r\n", b"\r\n", b"\r", b"\n",
    b"content-length: 5\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n", b"5\r\nabcde\r\n",
    b"expect: 100-continue\r\n", b"connection: close\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n", b"{}", b"abcde",
    b"authorization: Bearer x\r\n", b"content-encoding: gzip\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00",
]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=14), cuts=st.lists(st.integers(0, 200))
)
async def test_any_mixture_of_http_is_answered_or_cut_off(
    gateway: RunningGateway, pieces: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(pieces)
    async with connect(gateway.port) as client, connect(gateway.port) as other:
        position = 0
        for cut in [*sorted(cuts)[:4], len(data)]:
            if cut > position:
                client.writer.write(data[position:cut])
                position = cut
                await asyncio.sleep(0)
        client.writer.write_eof()
        await other.send(request_bytes(chat(), key=gateway.pushed.key))
        assert (await other.read_answer()).document == completion()  # and nothing of the other's
        try:
            answers = await read_all(client)
        except ConnectionError:
            return
        assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
        assert b"chatcmpl" not in answers


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_backends_answers_at_any_split_and_garbage_reach_only_whom_they_are_for(
    gateway: RunningGateway, upstream: ScriptedUpstream, data: Any
) -> None:
    """Several clients at once, whose backend's bytes come in any pieces, some followed by garbage."""
    garbage = data.draw(st.binary(max_size=20) | st.just(b""))
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))

    async def stammer(received: Received, session: Session) -> None:
        user = received.document["user"]
        if received.document["stream"]:
            events = b"".join(
                b"%x\r\n%b\r\n" % (len(event), event)
                for event in (
                    b"data: " + json.dumps(chunk(user, finish=finish)).encode() + b"\n\n" for finish in (None, "stop")
                )
            )
            done = b"data: [DONE]\n\n"
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            answer += events + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done)
        else:
            body = json.dumps(completion(id=user)).encode()
            answer = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
        position, turn = 0, 0
        while position < len(answer):
            size = sizes[turn % len(sizes)]
            session.writer.write(answer[position : position + size])
            position, turn = position + size, turn + 1
            await asyncio.sleep(0)
        if garbage:
            session.writer.write(garbage)
        await session.writer.drain()

    upstream.script = stammer

    async def one(i: int) -> tuple[int, Answer]:
        return i, await ask(gateway.port, chat(user=f"u{i}", stream=bool(i % 2)), key=gateway.pushed.key)

    for i, answer in await asyncio.gather(*(one(i) for i in range(6))):
        assert answer.status in (200, 502)
        if answer.status == 200 and i % 2 == 0:
            assert answer.document["id"] == f"u{i}"
        if answer.status == 200 and i % 2:
            assert set(answer.text.replace(f"u{i}", "|")) <= {"|"}


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    gateway: RunningGateway, upstream: ScriptedUpstream, is_chunked: bool, pieces: int
) -> None:
    """Java's HttpClient offers `h2c` with every first request. Its body must not be taken for what comes after the upgrade."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    inner = request_bytes(chat(), key=gateway.pushed.key)
    body = json.dumps(chat(user=inner.decode())).encode()
    request = request_bytes(body, key=gateway.pushed.key, headers=offer)
    if is_chunked:
        head = request_bytes(None, key=gateway.pushed.key, method="POST", headers=offer).partition(b"\r\n\r\n")[0]
        request = head + b"\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with connect(gateway.port) as client:
        step = len(request) // pieces + 1
        for start in range(0, len(request), step):
            await client.send(request[start : start + step])
            await asyncio.sleep(0.02)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await read_all(client) == b"", "one answer"
    assert [json.loads(received.body)["user"] for received in upstream.received] == [inner.decode()]
    async with connect(gateway.port) as client:
        await client.send(request_bytes(method="GET", path="/v1/models", key=gateway.pushed.key, headers=offer))
        assert (await client.read_answer()).status == 200
        assert await read_all(client) == b""


@pytest.mark.parametrize("key", ["a key", None])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_follows_a_refused_transfer_encoding_is_not_served(
    gateway: RunningGateway, upstream: ScriptedUpstream, version: str, key: str | None
) -> None:
    coding = "chunked" if version == "1.0" else "gzip, chunked"
    refused = request_bytes(key=gateway.pushed.key, version=version, headers={"transfer-encoding": coding})
    async with connect(gateway.port) as client:
        await client.send(refused + b"0\r\n\r\n" + request_bytes(chat(), key=key and gateway.pushed.key))
        assert (await client.read_answer()).status == 400
        assert await read_all(client) == b""
    await asyncio.sleep(0.1)
    assert upstream.received == []
    assert gateway.worker.gateway.metrics.in_flight == 0
