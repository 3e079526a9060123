"""A mail server of the test's own, which keeps what it is sent."""

import asyncio
import email
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP


class Mailbox:
    """What was received; `handle_DATA` is what aiosmtpd calls."""

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.refusals = 0
        """So many messages are refused before one is taken."""
        self.port = 0

    @property
    def url(self) -> str:
        """For `IAS_SMTP_URL`."""
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802  # aiosmtpd calls it
        if self.refusals:
            self.refusals -= 1
            return "451 not now"
        self.received.append(cast("EmailMessage", email.message_from_bytes(envelope.content, policy=default)))
        return "250 OK"

    async def mail(self, number: int = -1) -> EmailMessage:
        """A message, which must come."""
        async with asyncio.timeout(20):
            while len(self.received) < (number + 1 if number >= 0 else 1):
                await asyncio.sleep(0.02)
        return self.received[number]

    async def token(self, number: int = -1) -> str:
        """What the link of a message carries."""
        text = (await self.mail(number)).get_content()
        found = re.search(r"#token=(\S+)", text)
        assert found, text
        return found[1]


@asynccontextmanager
async def open_mailbox() -> AsyncIterator[Mailbox]:
    """A mail server on some port of this machine."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, enable_SMTPUTF8=True), "127.0.0.1", 0)
    mailbox.port = server.sockets[0].getsockname()[1]
    try:
        yield mailbox
    finally:
        server.close()
        await server.wait_closed()
