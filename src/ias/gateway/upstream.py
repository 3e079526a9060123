"""Connections to backends: kept alive, bounded per backend, and watched by deadlines.

An UpstreamConnection serves one exchange at a time and tells its receiver what happens. The receiver decides; the
connection knows HTTP only.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Collection
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httptools

from ias.contracts.routes import Backend
from ias.gateway.dialing import Dialer
from ias.gateway.known_head import KnownHead
from ias.gateway.settings import GatewaySettings

_HEAD_BYTES_MAX: Final = 65_536
_FOREVER: Final = float("inf")

EVENT_STREAM: Final = b"text/event-stream"
"""How the Content-Type of a stream begins."""


class UpstreamHead:
    """Status and the few headers of an answer that matter."""

    __slots__ = ("content_encoding", "content_length", "content_type", "is_chunked", "retry_after", "status")

    def __init__(self) -> None:
        self.status = 0
        self.content_type = b""
        self.content_length: int | None = None
        self.content_encoding = b""
        self.retry_after = b""
        self.is_chunked = False

    def repeat(self, content_length: int) -> "UpstreamHead":
        """The same for a body of another length, as far as a known head goes: 200, and nothing that is rare."""
        again = UpstreamHead()
        again.status = self.status
        again.content_type = self.content_type
        again.content_encoding = self.content_encoding
        again.content_length = content_length
        return again


class Receiver(Protocol):
    """Who waits for an answer. After `answer_ended` or `answer_failed` nothing more is told."""

    backend_id: str
    """Whom it has asked: several backends may be at one address."""

    def head_received(self, head: UpstreamHead) -> bool:
        """The answer begins. True: hand over the body's raw bytes (framing included) through `raw_received`."""

    def raw_received(self, data: bytes) -> bool:
        """Raw bytes of the body. True: the body is complete and the connection free."""

    def body_received(self, data: bytes) -> None:
        """Decoded bytes of the body."""

    def whole_received(self, head: UpstreamHead, body: bytes) -> None:
        """In place of all others: an answer with status 200 that has come in one piece, and is no stream."""

    def answer_ended(self) -> None:
        """The body is complete (for raw bodies: the backend closed the connection, which ends some)."""

    def answer_failed(self, reason: str) -> None:
        """`refused`, `lost`, `malformed`, `first_byte_timeout`, `idle_timeout`, `total_timeout` or `disabled`."""


class UpstreamConnection:
    """One TCP (or TLS) connection to a backend."""

    def __init__(self, pool: "BackendPool") -> None:
        self.deadline = _FOREVER
        """Loop time at which `deadline_passed` is due."""
        self.is_reused = False
        self.has_answered = False
        """Whether any byte of the current answer has come."""
        self.is_lively = False
        """Whether something was sent or has come since the worker's clock last looked: working a deadline out anew for
        each is dear."""
        self.idle_since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._parser: httptools.HttpResponseParser
        self._head: UpstreamHead
        self._head_bytes = b""
        self._in_head = True
        self._is_raw = False
        self._is_complete = False
        self._total_deadline = _FOREVER
        self._first_byte_timeout_s: float | None = None
        self._keeps_alive = True
        self._length_left: int | None = None
        """Of a body whose length was announced: it needs no parser."""

    # -------------------------------------------------------------- use

    def send(
        self,
        receiver: Receiver,
        head: bytes,
        body: bytes | bytearray,
        total_deadline: float,
        first_byte_timeout_s: float | None = None,
    ) -> None:
        """Send a request; the receiver is told of the answer. Without a timeout the pool's holds."""
        self._receiver = receiver
        self._first_byte_timeout_s = first_byte_timeout_s
        self._head_bytes = b""
        self._in_head = self.is_lively = True
        self._is_raw = self._is_complete = self.has_answered = False
        self.deadline = self._total_deadline = total_deadline
        if len(body) < 65_536:
            self._transport.write(b"".join((head, body)))
        else:
            self._transport.writelines((head, body))

    def abort(self) -> None:
        """Close at once, without another word to the receiver: this is how an engine learns to stop generating."""
        self._receiver = None
        self._transport.abort()

    def cut(self, backend_id: str) -> None:
        """The backend was switched off: what it is asked for here fails."""
        if self._receiver is not None and self._receiver.backend_id == backend_id:
            self._fail("disabled")

    def pause(self) -> None:
        """Read no more: whoever the answer goes to cannot keep up."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Whether the connection takes no more requests."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.close()

    def check_deadline(self, now: float) -> None:
        """Told the time now and then by the worker's clock."""
        if self.is_lively:
            self.is_lively = False
            pool = self._pool
            timeout_s = (
                pool.idle_timeout_s if self.has_answered else self._first_byte_timeout_s or pool.first_byte_timeout_s
            )
            self.deadline = min(now + timeout_s, self._total_deadline)
        if self.deadline <= now:
            self._deadline_passed(now)

    def allow(self, time_s: float) -> None:
        """Set another deadline for what is still to come."""
        self.is_lively = False
        self._total_deadline = self.deadline = self._pool.loop.time() + time_s

    def _deadline_passed(self, now: float) -> None:
        if now >= self._total_deadline:
            reason = "total_timeout"
        elif self.has_answered:
            reason = "idle_timeout"
        else:
            reason = "first_byte_timeout"
        self._fail(reason)

    # -------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Asyncio."""
        receiver = self._receiver
        if receiver is None:  # an idle backend has nothing to say
            self._transport.abort()
            return
        self.has_answered = self.is_lively = True
        if self._is_raw:
            if receiver.raw_received(data):
                self._release()
            return
        if self._in_head:
            known = self._pool.known_head
            body = known.find_body(data) if known is not None and not self._head_bytes else None
            if body is not None:
                self._keeps_alive = True
                self._release()
                receiver.whole_received(self._pool.known_answer, body)
                return
            data = self._take_head(data)
        if data and self._receiver is not None:
            self._take_body(receiver, data)

    def _take_body(self, receiver: Receiver, data: bytes) -> None:
        if self._is_raw:
            if receiver.raw_received(data):
                self._release()
        elif self._length_left is None:
            self._parse(data)
        elif len(data) > self._length_left:
            self._fail("malformed")
        else:
            self._length_left -= len(data)
            receiver.body_received(data)
            if not self._length_left:
                self._complete()

    def eof_received(self) -> bool:
        """asyncio: a backend that will send no more is of no more use."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Asyncio."""
        self._pool.forget(self)
        receiver = self._receiver
        if receiver is None:
            return
        if self._is_raw or (not self._in_head and self._ends_with_close):
            self._receiver = None
            receiver.answer_ended()
        else:
            self._fail("lost")

    # -------------------------------------------------------------- the answer

    @property
    def _ends_with_close(self) -> bool:
        return not self._head.is_chunked and self._head.content_length is None

    def _take_known_head(self, data: bytes) -> bytes | None:
        """The bytes that follow a head the pool knows; None leaves it to the parser."""
        known = self._pool.known_head
        found = known.match(data) if known is not None and not self._head_bytes else None
        if found is None or not found[1]:
            return None
        body_start, length = found
        self._head = self._pool.known_answer.repeat(length)
        self._in_head = False
        self._keeps_alive = True
        return self._begin_body(data[body_start:])

    def _learn_head(self, data: bytes) -> None:
        head = self._head
        is_plain = head.status == 200 and not head.is_chunked and not head.content_type.startswith(EVENT_STREAM)
        if is_plain and self._keeps_alive and head.content_length:
            self._pool.known_head = KnownHead.learn(data, head.content_length)
            self._pool.known_answer = head

    def _take_head(self, data: bytes) -> bytes:
        """Collect the head; the bytes that follow it, once it is whole."""
        rest = self._take_known_head(data)
        if rest is not None:
            return rest
        self._head_bytes = data = whole = self._head_bytes + data if self._head_bytes else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _HEAD_BYTES_MAX:
                    self._fail("malformed")
                self._head_bytes = data
                return b""
            self._head = UpstreamHead()
            self._is_complete = False  # an interim answer is complete with its head
            self._parser = httptools.HttpResponseParser(self)
            if not self._parse(data[: end + 4]):
                return b""
            data = data[end + 4 :]
            if self._head.status >= 200:
                break
        self._head_bytes = b""
        self._in_head = False
        self._keeps_alive = self._parser.should_keep_alive()
        self._learn_head(whole)
        return self._begin_body(data)

    def _begin_body(self, rest: bytes) -> bytes:
        receiver = self._receiver
        if receiver is None:
            return b""
        self._length_left = self._head.content_length
        if receiver.head_received(self._head):
            self._is_raw = True
        elif self._is_complete and self._receiver is receiver:  # a body of no bytes
            self._complete()
        return rest

    def _parse(self, data: bytes) -> bool:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("malformed")
            return False
        except httptools.HttpParserError:
            self._fail("malformed")
            return False
        if self._is_complete and not self._in_head:
            self._complete()
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        match name.lower():
            case b"content-type":
                self._head.content_type = value
            case b"content-length":
                self._head.content_length = int(value)
            case b"transfer-encoding":
                self._head.is_chunked = value.lower() == b"chunked"
            case b"content-encoding":
                self._head.content_encoding = value.lower()
            case b"retry-after":
                self._head.retry_after = value

    def on_headers_complete(self) -> None:
        """httptools: the head is whole."""
        self._head.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """httptools: decoded bytes of the body."""
        if self._receiver is not None:
            self._receiver.body_received(data)

    def on_message_complete(self) -> None:
        """httptools: the body is whole."""
        self._is_complete = True

    def _complete(self) -> None:
        receiver = self._receiver
        if receiver is not None:
            self._release()
            receiver.answer_ended()

    def _release(self) -> None:
        """The exchange is over; the connection goes back to the pool when it may be used again."""
        self._receiver = None
        self.deadline = _FOREVER
        if self._keeps_alive and not self._transport.is_closing():
            self._pool.put_back(self)
        else:
            self._pool.forget(self)
            self._transport.close()

    def _fail(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        self._transport.abort()
        if receiver is not None:
            receiver.answer_failed(reason)


class PoolFullError(Exception):
    """The backend has all the requests in flight that it may have."""


class BackendPool:
    """The connections of one worker to one backend."""

    def __init__(
        self,
        url: str,
        *,
        connections_max: int,
        keepalive_s: float,
        connect_timeout_s: float,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        tls: ssl.SSLContext | None,
        dialer: Dialer,
    ) -> None:
        parts = urlsplit(url)
        self.loop = asyncio.get_running_loop()
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self.path = parts.path.rstrip("/")
        self.first_byte_timeout_s = first_byte_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.in_flight = 0
        self.is_retired = False
        """Whether no route leads here any more: what comes back is closed."""
        self.known_head: KnownHead | None = None
        self.known_answer: UpstreamHead
        """What the known head says."""
        self._dialer = dialer
        self._tls = tls if parts.scheme == "https" else None
        self._connections_max = connections_max
        self._keepalive_s = keepalive_s
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[UpstreamConnection] = deque()
        self._now = self.loop.time()
        """Loop time of the clock's last look: near enough for connections that are kept for seconds."""
        self.busy: set[UpstreamConnection] = set()

    def take_idle(self) -> UpstreamConnection | None:
        """The connection used last, if one is idle: the others may then age, and be closed by `close_stale`.

        Raises:
            PoolFullError: see there.
        """
        if self.in_flight >= self._connections_max:
            raise PoolFullError
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closing():
                connection.is_reused = True
                self._lend(connection)
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            OSError: refused, unreachable, not within the deadline, or not where requests may be sent.
        """
        self.in_flight += 1
        try:
            connection: UpstreamConnection = await asyncio.wait_for(
                self._dialer.dial(self._make_connection, self.host, self.port, tls=self._tls), self._connect_timeout_s
            )
        finally:
            self.in_flight -= 1
        self._lend(connection)
        return connection

    def _make_connection(self) -> Any:
        """For asyncio, which knows a protocol by its methods; a base class of its own would slow the compiled build down."""
        return UpstreamConnection(self)

    def _lend(self, connection: UpstreamConnection) -> None:
        self.in_flight += 1
        self.busy.add(connection)

    def put_back(self, connection: UpstreamConnection) -> None:
        """The connection is idle again."""
        self.busy.discard(connection)
        self.in_flight -= 1
        if self.is_retired:
            connection.close()
        else:
            connection.idle_since = self._now
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is closed or about to be."""
        if connection in self.busy:
            self.busy.discard(connection)
            self.in_flight -= 1

    def close_stale(self, now: float) -> None:
        """Close connections that were idle for too long. Told the time now and then by the worker's clock."""
        self._now = now
        while self._idle and now - self._idle[0].idle_since >= self._keepalive_s:
            self._idle.popleft().close()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def close(self) -> None:
        """Close every connection."""
        self.close_idle()
        for connection in tuple(self.busy):
            connection.abort()


class Upstreams:
    """Every backend's pool, by URL."""

    def __init__(self, settings: GatewaySettings, *, tls: ssl.SSLContext | None, dialer: Dialer) -> None:
        self._settings = settings
        self._tls = tls
        self._dialer = dialer
        self._pools: dict[str, BackendPool] = {}

    def pool(self, url: str) -> BackendPool:
        """The pool of the backend with this base URL."""
        return self._pools.get(url) or self._open(url)

    def _open(self, url: str) -> BackendPool:
        settings = self._settings
        pool = self._pools[url] = BackendPool(
            url,
            connections_max=settings.gateway_backend_connections_max,
            keepalive_s=settings.gateway_upstream_keepalive_s,
            connect_timeout_s=settings.gateway_connect_timeout_s,
            first_byte_timeout_s=settings.gateway_first_byte_timeout_s,
            idle_timeout_s=settings.gateway_stream_idle_timeout_s,
            tls=self._tls,
            dialer=self._dialer,
        )
        return pool

    def cut(self, backend: Backend) -> None:
        """End what a backend that was switched off still serves."""
        pool = self._pools.get(backend.url)
        for connection in tuple(pool.busy) if pool is not None else ():
            connection.cut(backend.id)

    def retain(self, urls: Collection[str]) -> None:
        """Let go of the backends that no route leads to any more, as soon as what they still serve is over."""
        for url, pool in tuple(self._pools.items()):
            pool.is_retired = url not in urls
            if pool.is_retired:
                pool.close_idle()
                if not pool.in_flight:
                    del self._pools[url]

    @property
    def in_flight(self) -> int:
        """Requests at all backends."""
        return sum(pool.in_flight for pool in self._pools.values())

    def check_deadlines(self, now: float) -> None:
        """Fail what is overdue and close what is stale."""
        for pool in self._pools.values():
            for connection in tuple(pool.busy):
                connection.check_deadline(now)
            pool.close_stale(now)

    def close(self) -> None:
        """Close everything."""
        for pool in self._pools.values():
            pool.close()
