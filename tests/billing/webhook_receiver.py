"""A server of somebody's own that alerts are posted to."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

SILENCE = 0
"""In place of a status: no answer ever."""
DRIP = 1
"""In place of a status: an answer that arrives byte by byte, for an hour."""


@dataclass
class WebhookReceiver:
    """Keeps what it is sent; answers with `statuses`, one after the other, and the last of them from then on."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def verify(self, position: int, secret: str) -> dict[str, Any]:
        """The message, when a signature is by the secret: worked out as the specification says, not as the sender does."""
        headers, body = self.received[position]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert wanted in headers["webhook-signature"].split(" ")
        message: dict[str, Any] = json.loads(body)
        return message

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        self.received.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == SILENCE:
            await self.ended.wait()
            writer.close()
            return
        if status == DRIP:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
            while not writer.is_closing() and not self.ended.is_set():
                writer.write(b".")
                await asyncio.sleep(0.05)
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening(*statuses: int) -> AsyncIterator[WebhookReceiver]:
    """A receiver on this machine."""
    receiver = WebhookReceiver(statuses=list(statuses) or [204])
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/budgets"
        yield receiver
        receiver.ended.set()
