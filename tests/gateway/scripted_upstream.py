"""A backend over raw sockets that does exactly what a test tells it to, faults included."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """A request as the backend got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Session:
    """The backend's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_json(self, document: Any, status: int = 200, headers: str = "") -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.send(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def begin_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, document: Any) -> None:
        await self.chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.chunk(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    def abort(self) -> None:
        self.writer.transport.abort()

    async def wait_closed_by_peer(self) -> None:
        """Return once the gateway has closed the connection."""
        try:
            while await self.reader.read(1024):
                pass
        except ConnectionError:
            pass


Script = Callable[[Received, Session], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """The server. `script` answers each request; assign another at any time."""

    script: Script
    port: int = 0
    scheme: str = "http"
    received: list[Received] = field(default_factory=list)
    open_sessions: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_sessions += 1
        try:
            while (received := await _read_request(reader)) is not None:
                self.received.append(received)
                await self.script(received, Session(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_sessions -= 1
            writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


@asynccontextmanager
async def run_upstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(script, scheme="http" if tls is None else "https")
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=64 * 1024 * 1024, ssl=tls, backlog=2048)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def completion(**more: Any) -> dict[str, Any]:
    """An answer of a chat model."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
        "usage": USAGE,
        **more,
    }


def chunk(content: str | None = None, *, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """One event of a chat model's stream."""
    delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        **more,
    }


def usage_chunk(usage: dict[str, Any] = USAGE) -> dict[str, Any]:
    """The event that ends a stream for which usage was asked."""
    return {**chunk(), "choices": [], "usage": usage}


async def answer_politely(received: Received, session: Session) -> None:
    """What a healthy backend does."""
    if not received.document.get("stream"):
        await session.send_json(completion())
        return
    await session.begin_stream()
    await session.event(chunk("", role="assistant"))
    for word in ("Hel", "lo"):
        await session.event(chunk(word))
    await session.event(chunk(finish="stop"))
    if (received.document.get("stream_options") or {}).get("include_usage"):
        await session.event(usage_chunk())
    await session.end_stream()
