"""A client over a raw socket, for what HTTP libraries would hide or refuse to do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    header_lines: list[str]

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.document["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[str]:
        """The data of every event, in order."""
        blocks = self.body.decode().split("\n\n")
        assert blocks[-1] == "", "the stream ends in the middle of an event"
        return [block.removeprefix("data: ") for block in blocks[:-1]]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Every event but the end mark, parsed."""
        assert self.events[-1] == "[DONE]"
        assert self.events.count("[DONE]") == 1
        return [json.loads(event) for event in self.events[:-1]]

    @property
    def text(self) -> str:
        return "".join(c["delta"].get("content") or "" for e in self.chunks for c in e.get("choices", []))


class RawClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> tuple[int, dict[str, str], list[str]]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split(" ")[1]), headers, [first, *lines]

    async def read_answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(20):
            status, headers, lines = await self.read_head()
            if head_only:
                return Answer(status, headers, b"", lines)
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join([part async for part in self.read_chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif status in (100, 204):
                body = b""
            else:
                body = await self.reader.read()
            return Answer(status, headers, body, lines)

    async def read_chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            if size == 0:
                return
            yield data[:-2]

    async def is_closed(self) -> bool:
        """Whether the gateway has closed the connection (waits for it)."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connect(port: int, *, buffer_bytes: int = 64 * 1024 * 1024) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=buffer_bytes)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def request_bytes(
    body: Any = None,
    *,
    key: str | None = None,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    version: str = "1.1",
) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", "host: gateway"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def ask(port: int, body: Any = None, **more: Any) -> Answer:
    """One request on a connection of its own."""
    async with connect(port) as client:
        await client.send(request_bytes(body, **more))
        return await client.read_answer(head_only=more.get("method") == "HEAD")


def chat(**more: Any) -> dict[str, Any]:
    """A request for model `m`."""
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
