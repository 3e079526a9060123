"""One GET on a connection of its own, with nothing around it: a tenth of what the general HTTP client takes for a probe.

It goes where the egress policy allows, to the very address that was checked, under the name that was asked for. No redirect is
followed, and no answer is read beyond its bound. The deadline is the caller's.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httptools

from ias.kit.egress import EgressPolicy

_DEFAULT_PORTS = {"http": 80, "https": 443}


class NoUsableAnswerError(Exception):
    """What came is no HTTP answer, or more than anybody should want. The text says which."""


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """Status and body."""

    status: int
    body: bytes


class PlainGet:
    """Gets from servers that somebody named."""

    def __init__(self, egress: EgressPolicy, *, answer_bytes_max: int) -> None:
        self._egress = egress
        self._answer_bytes_max = answer_bytes_max
        self._tls = ssl.create_default_context()

    async def get(self, url: str, headers: Mapping[str, str]) -> PlainAnswer:
        """The answer, whatever its status.

        Raises:
            EgressRefusedError: the host may not be called.
            OSError: no connection can be made, or it broke.
            NoUsableAnswerError: see there.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = await self._egress.find_address(host)
        if address is None:
            raise ConnectionError("the host's name is not known")
        is_tls = parts.scheme == "https"
        loop = asyncio.get_running_loop()
        transport, reading = await loop.create_connection(
            lambda: _Reading(self._answer_bytes_max, loop.create_future()),
            address,
            parts.port or _DEFAULT_PORTS[parts.scheme],
            ssl=self._tls if is_tls else None,
            server_hostname=host if is_tls else None,
        )
        try:
            transport.write(_render(parts, headers))
            return await reading.answer
        finally:
            transport.abort()


def _render(parts: SplitResult, headers: Mapping[str, str]) -> bytes:
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    lines = [
        f"GET {path} HTTP/1.1",
        f"host: {parts.netloc}",
        "connection: close",
        "accept-encoding: identity",
        "user-agent: ias-registry",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class _Reading(asyncio.Protocol):
    """The answer as it comes."""

    def __init__(self, bytes_max: int, answer: "asyncio.Future[PlainAnswer]") -> None:
        self.answer = answer
        self._bytes_left = bytes_max
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._has_head = False
        self._ends_with_connection = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._fail(NoUsableAnswerError("it is too long"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(NoUsableAnswerError("it is not HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if exc is None and self._has_head and self._ends_with_connection:
            self.on_message_complete()
        self._fail(exc if isinstance(exc, OSError) else ConnectionError("it was cut off"))

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - the parser's signature
        """See httptools."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._parser.get_status_code() < 200:  # a word in between, such as 103; the answer follows
            self._has_head = False
            self._ends_with_connection = True
        elif not self.answer.done():
            self.answer.set_result(PlainAnswer(self._parser.get_status_code(), b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
