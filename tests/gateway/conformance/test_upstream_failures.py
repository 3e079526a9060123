"""Backends that fail, at every stage. Numbers are those of the list in README.md."""

import asyncio
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends, budget, until
from tests.gateway.raw_client import Answer, ask, chat
from tests.gateway.scripted_upstream import (
    Received,
    ScriptedUpstream,
    Session,
    answer_politely,
    chunk,
    completion,
    run_upstream,
)

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
async def nothing_is_left(
    pushed: Pushed, started_gateways: list[RunningGateway], start_gateway: StartGateway
) -> AsyncIterator[None]:
    """Every request here is admitted by a budget, and after each fault nothing is held any more."""
    await pushed.budgets(budget(10**15))
    yield
    for running in started_gateways:
        await running.until_nothing_is_held()
        await running.records(running.worker.gateway.spool.appended)
        settled, _ = await pushed.counter("b1")
        assert settled == sum(record["cost_nano_usd"] for record in running.publisher.records)


@pytest.fixture
async def second() -> AsyncIterator[ScriptedUpstream]:
    async with run_upstream(answer_politely) as running:
        yield running


async def route_to(gateway: RunningGateway, *urls: str) -> None:
    await gateway.pushed.routes({"m": {"backends": backends(*urls)}, f"v{gateway.pushed.versions}": {}})
    snapshots = gateway.worker.gateway.snapshots
    await until(lambda: snapshots.routes is not None and snapshots.routes.version == gateway.pushed.versions)


async def broken_stream(gateway: RunningGateway) -> Answer:
    answer = await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)
    assert answer.status == 200
    error = answer.chunks[-1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    return answer


async def test_35_a_backend_that_refuses_is_passed_over(gateway: RunningGateway, second: ScriptedUpstream) -> None:
    await route_to(gateway, NOBODY, second.url)
    for _ in range(4):
        assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    assert len(second.received) == 4


async def test_35_when_all_refuse_it_is_503(gateway: RunningGateway) -> None:
    await route_to(gateway, NOBODY)
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", "upstream_unreachable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_36_42_a_failing_backend_is_passed_over(
    gateway: RunningGateway, upstream: ScriptedUpstream, second: ScriptedUpstream, status: int
) -> None:
    async def fail(_: Received, session: Session) -> None:
        await session.send_json({"error": "no"}, status)

    upstream.script = fail
    await route_to(gateway, upstream.url, second.url)
    for stream in (False, True, False, True):
        assert (await ask(gateway.port, chat(stream=stream), key=gateway.pushed.key)).status == 200
    records = await gateway.records(4)
    assert {record["backend_id"] for record in records} == {"backend-1"}


@pytest.mark.parametrize(
    ("status", "sent", "seen"),
    [
        (429, "17", "17"),
        (503, "17", "17"),
        (429, "1.2", "2"),
        (503, "0", "1"),
        (429, formatdate(0, usegmt=True), "1"),
        (429, "soon", "1"),
        (503, "1e999", "1"),
        (429, "-5", "1"),
        (500, "17", None),
        (400, "17", None),
    ],
)
async def test_42_how_long_a_backend_asks_to_wait_is_passed_on(
    gateway: RunningGateway, upstream: ScriptedUpstream, status: int, sent: str, seen: str | None
) -> None:
    async def refuse(_: Received, session: Session) -> None:
        await session.send_json({"error": "no"}, status, headers=f"Retry-After: {sent}\r\n")

    upstream.script = refuse
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert (answer.status, answer.headers.get("retry-after")) == (status, seen)


async def test_a_clients_error_is_not_tried_elsewhere(
    gateway: RunningGateway, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    async def refuse(_: Received, session: Session) -> None:
        await session.send_json({"error": {"message": "bad"}}, 400)

    upstream.script = second.script = refuse
    await route_to(gateway, upstream.url, second.url)
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 400
    assert len(upstream.received) + len(second.received) == 1


async def test_37_death_in_mid_stream_is_an_error_event_and_not_retried(
    gateway: RunningGateway, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    async def die(_: Received, session: Session) -> None:
        await session.begin_stream()
        for _ in range(3):
            await session.event(chunk("a"))
        await asyncio.sleep(0.05)
        session.abort()

    upstream.script = second.script = die
    await route_to(gateway, upstream.url, second.url)
    answer = await broken_stream(gateway)
    assert answer.text == "aaa"
    assert len(upstream.received) + len(second.received) == 1
    (record,) = await gateway.records(1)
    assert (record["outcome"], record["output_tokens"], record["estimated"]) == ("failed", 3, True)


async def test_37_a_body_that_ends_early_but_properly_is_an_error_event(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def stop(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await session.end_stream(done=False)

    upstream.script = stop
    assert (await broken_stream(gateway)).text == "a"


async def test_38_a_partial_event_is_dropped(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    async def cut(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await session.chunk(b'data: {"choices":[{"del')
        await asyncio.sleep(0.05)
        session.abort()

    upstream.script = cut
    assert (await broken_stream(gateway)).text == "a"


async def test_a_backend_that_dies_before_the_first_event_is_passed_over(
    gateway: RunningGateway, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    async def die(_: Received, session: Session) -> None:
        await session.begin_stream()
        await asyncio.sleep(0.05)
        session.abort()

    upstream.script = die
    await route_to(gateway, upstream.url, second.url)
    for _ in range(3):
        assert (await ask(gateway.port, chat(stream=True), key=gateway.pushed.key)).text == "Hello"


async def test_40_a_backend_that_hangs_is_504(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    async def hang(_: Received, session: Session) -> None:
        await session.wait_closed_by_peer()

    upstream.script = hang
    await pushed.everything(upstream.url)
    gateway = await start_gateway(gateway_first_byte_timeout_s=0.2)
    await gateway.until_ready()
    answer = await ask(gateway.port, chat(), key=pushed.key)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (504, "server_error", "upstream_timeout")


@pytest.mark.parametrize("setting", ["gateway_stream_idle_timeout_s", "gateway_total_timeout_s"])
async def test_41_a_stall_in_mid_stream_is_an_error_event(
    start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream, setting: str
) -> None:
    async def stall(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await session.wait_closed_by_peer()

    upstream.script = stall
    await pushed.everything(upstream.url)
    gateway = await start_gateway(**{setting: 0.3})
    await gateway.until_ready()
    answer = await broken_stream(gateway)
    assert answer.chunks[-1]["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{x",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no-http", "html", "no-json", "short", "endless-head", "bad-chunk"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_43_garbage_is_502_and_leaks_nothing(
    gateway: RunningGateway, upstream: ScriptedUpstream, garbage: bytes, stream: bool
) -> None:
    async def babble(_: Received, session: Session) -> None:
        await session.send(garbage)
        session.writer.close()

    upstream.script = babble
    answer = await ask(gateway.port, chat(stream=stream), key=gateway.pushed.key)
    assert (answer.status, answer.error["type"]) == (502, "server_error")
    assert "html" not in answer.error["message"]


async def test_a_connection_gone_stale_is_replaced_without_a_word(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    async def answer_once(_: Received, session: Session) -> None:
        await session.send_json(completion())
        await session.reader.readuntil(b"\r\n\r\n")  # the next request comes and finds us leaving
        session.abort()

    upstream.script = answer_once
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    upstream.script = answer_politely
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200


async def test_connections_to_a_backend_are_kept(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    for stream in (False, True) * 5:
        assert (await ask(gateway.port, chat(stream=stream), key=gateway.pushed.key)).status == 200
    assert upstream.open_sessions == 1


async def test_a_backend_that_no_route_leads_to_any_more_is_let_go(
    gateway: RunningGateway, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(received: Received, session: Session) -> None:
        arrived.set()
        await go_on.wait()
        await answer_politely(received, session)

    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    upstream.script = slowly
    running = asyncio.create_task(ask(gateway.port, chat(stream=True), key=gateway.pushed.key))
    await arrived.wait()
    await gateway.pushed.routes({"m": {"backends": backends(second.url, id="other")}})
    pools, heads = gateway.worker.gateway.upstreams._pools, gateway.worker.gateway.upstream_requests
    await until(lambda: pools[upstream.url].is_retired)
    assert upstream.open_sessions == 1  # what runs is served to its end
    go_on.set()
    assert (await running).text == "Hello"
    await until(lambda: upstream.url not in pools and upstream.open_sessions == 0)
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200
    assert {backend_id for backend_id, _ in heads._heads} == {"other"}
    await gateway.pushed.routes({"m": {"backends": backends(upstream.url)}})
    await until(lambda: second.url not in pools and second.open_sessions == 0)
    assert (await ask(gateway.port, chat(), key=gateway.pushed.key)).status == 200


async def test_90_a_compressed_answer_is_unpacked(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    import gzip  # noqa: PLC0415
    import json  # noqa: PLC0415

    async def pack(_: Received, session: Session) -> None:
        await session.send_json(gzip.compress(json.dumps(completion()).encode()), headers="content-encoding: gzip\r\n")

    upstream.script = pack
    answer = await ask(gateway.port, chat(), key=gateway.pushed.key)
    assert answer.status == 200, answer.body
    assert answer.document["usage"]["prompt_tokens"] == 10
    assert upstream.received[0].headers["accept-encoding"] == "identity"
