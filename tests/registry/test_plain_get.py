"""The prober's GET, against servers that answer as they like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ias.kit.egress import EgressPolicy, EgressRefusedError
from ias.registry.core.plain_get import NoUsableAnswerError, PlainGet


async def resolve(host: str) -> list[str]:
    return {
        "inside.test": ["127.0.0.1"],
        "rebound.test": ["169.254.169.254"],
        "mixed.test": ["127.0.0.1", "169.254.1.1"],
    }[host]


def getter(*, allow_loopback: bool = True) -> PlainGet:
    policy = EgressPolicy(allow_loopback=allow_loopback, allow_private_networks=True, resolve=resolve)
    return PlainGet(policy, answer_bytes_max=10_000)


@asynccontextmanager
async def serving(*parts: bytes, closes: bool = True) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that sends the parts, one after the other; its port, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        if closes:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


ANSWERS: list[tuple[tuple[bytes, ...], int, bytes]] = [
    ((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",), 200, b"hi"),
    ((b"HTTP/1.1 200 OK\r\ncontent-", b"length: 4\r\n\r\nh", b"i", b"ya"), 200, b"hiya"),
    ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", b"0\r\n\r\n"), 200, b"hi"),
    ((b"HTTP/1.0 200 OK\r\n\r\nuntil", b" the end"), 200, b"until the end"),
    ((b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\nh", b"i"), 200, b"hi"),
    ((b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",), 503, b""),
    ((b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",), 302, b""),
]


@pytest.mark.parametrize(("parts", "status", "body"), ANSWERS)
async def test_an_answer_is_read_however_it_is_framed(parts: tuple[bytes, ...], status: int, body: bytes) -> None:
    async with serving(*parts) as (port, asked):
        answer = await getter().get(f"http://inside.test:{port}/v1/models?a=b", {"authorization": "Bearer x"})
    assert (answer.status, answer.body) == (status, body)
    (head,) = asked
    assert head.startswith(b"GET /v1/models?a=b HTTP/1.1\r\n")
    assert f"\r\nhost: inside.test:{port}\r\n".encode() in head
    assert b"\r\nauthorization: Bearer x\r\n" in head


@pytest.mark.parametrize(
    "part",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 20_000,
    ],
)
async def test_what_is_no_answer_or_too_long_is_none(part: bytes) -> None:
    async with serving(part) as (port, _):
        with pytest.raises(NoUsableAnswerError):
            await getter().get(f"http://127.0.0.1:{port}/", {})


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
        b"HTTP/1.1 200",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_an_answer_that_is_cut_off_is_none(part: bytes) -> None:
    async with serving(part) as (port, _):
        with pytest.raises(ConnectionError):
            await getter().get(f"http://127.0.0.1:{port}/", {})


async def test_silence_lasts_until_the_callers_deadline_and_leaves_nothing_open() -> None:
    async with serving(closes=False) as (port, asked):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await getter().get(f"http://127.0.0.1:{port}/", {})
        assert len(asked) == 1


@pytest.mark.parametrize(
    "host", ["rebound.test", "mixed.test", "169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"]
)
async def test_a_name_that_leads_elsewhere_by_now_is_refused(host: str) -> None:
    with pytest.raises(EgressRefusedError):
        await getter().get(f"http://{host}/v1/models", {})


async def test_loopback_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(EgressRefusedError):
        await getter(allow_loopback=False).get("http://inside.test/v1/models", {})
