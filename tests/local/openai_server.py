"""A server that lists models as OpenAI-compatible servers do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class OpenAiServer:
    """What it listens on, and what it lists."""

    port: int
    models: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@asynccontextmanager
async def serve_models(models: list[dict[str, Any]]) -> AsyncIterator[OpenAiServer]:
    """Listen on a free port until the block ends."""
    described = OpenAiServer(0, models)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"object": "list", "data": described.models}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    described.port = server.sockets[0].getsockname()[1]
    try:
        yield described
    finally:
        server.close()
        await server.wait_closed()
