"""A client's HTTP/1.1 connection: requests off the wire one after another, answers back in the same order.

llhttp (through httptools) does the parsing and refuses what could be read in two ways. Requests that are pipelined wait
their turn. What a peer may make us hold is bounded by limits and deadlines: a head, a body, a few waiting requests, and a
write buffer that pauses the backend when it is full.
"""

import asyncio
import socket
import struct
from collections import deque
from http import HTTPStatus
from typing import Final

import httptools

from ias.contracts.ids import request_id_of, uuid7
from ias.gateway.body_alone import BodyAlone, head_of_body_alone
from ias.gateway.cors import cors_headers
from ias.gateway.errors import Refusal, malformed_http
from ias.gateway.exchange import Exchange, Request
from ias.gateway.known_head import KnownHead
from ias.gateway.pipeline import Pipeline
from ias.gateway.request_heads import judge_head, take_header

_FOREVER: Final = float("inf")
_WAITING_MAX: Final = 16
_DRAINED_BODY_BYTES_MAX: Final = 65_536
"""A refused request's body up to this size is read to its end, so that the connection stays usable."""
_BODY_STEP_BYTES: Final = 16_384
"""So much of a body must come within its deadline, which each further step renews: one byte now and then holds no connection."""
_LINGER_S: Final = 2.0
_WRITE_BUFFER_HIGH_BYTES: Final = 65_536
_JOINED_BYTES_MAX: Final = 65_536
"""Copying a body up to this size behind its head costs less than a second buffer in the transport."""
_LESSONS_MAX: Final = 8
"""Heads of one connection that are remembered, each in place of the one before, until that is given up."""
_PROBE_FIRST_S: Final = 0.03
_PROBE_LAST_S: Final = 2.0
_TCP_CLOSED_STATES: Final = frozenset({7})  # TCP_CLOSE: the peer has answered with RST
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBE_IN_STREAM: Final = b"2\r\n:\n\r\n"

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class ServerConnection:
    """One client's connection. It is the `Client` of the exchange that is being answered."""

    def __init__(self, pipeline: Pipeline, connections: "set[ServerConnection]") -> None:
        self.deadline = _FOREVER
        """Loop time at which `deadline_passed` is due."""
        self.peer_address = ""
        self._pipeline = pipeline
        self._gateway = pipeline.gateway
        self._settings = pipeline.gateway.settings
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._arriving: Request | None = None
        self._head_bytes = 0
        self._in_head = True
        self._waiting: deque[Request] = deque()
        self._request: Request | None = None
        self._exchange: Exchange | None = None
        self._held_answer: list[bytes | bytearray] | None = None
        """An answer that waits until the request's body has been read to its end."""
        self._late_refusal: Refusal | None = None
        """What is wrong behind the requests that are still to be answered."""
        self._is_answered = False
        self._is_streaming = False
        self._wants_body = False
        self._is_paused = False
        self._is_reading = True
        self._closes_after = False
        self._is_lingering = False
        self._has_eof = False
        self._unwritten_before = 0
        self._known_head: KnownHead | None = None
        self._pattern: Request
        """The request that came under the known head."""
        self._unlearned: Request | None = None
        self._begins_head = False
        """Whether the bytes at hand begin with the head that arrives."""
        self._lessons_left = _LESSONS_MAX

    # -------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio."""
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        self.peer_address = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
        self._connections.add(self)
        self.deadline = self._loop.time() + self._settings.gateway_header_timeout_s

    def data_received(self, data: bytes) -> None:
        """Asyncio."""
        if self._is_lingering or self._closes_after or self._late_refusal is not None:
            return
        if self._in_head:
            if self._head_bytes == 0 and self._request is None:
                if self._known_head is not None and self._take_known(data, self._known_head):
                    return
                self.deadline = self._loop.time() + self._settings.gateway_header_timeout_s
            if self._is_head_too_large(data):
                self._refuse_protocol(malformed_http("The request's headers are too large.", 431))
                return
            self._begins_head = self._head_bytes == 0
            self._head_bytes += len(data)
        else:
            self._begins_head = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse_protocol(malformed_http("The HTTP request is malformed."))
            return
        if self._unlearned is not None:
            self._learn_head(data, self._unlearned)

    def _pass_over_upgrade(self, rest: bytes) -> None:
        """Answer in HTTP/1.1 and then close: a server may ignore the protocols that a client offers (RFC 9110, section 7.8).

        The parser takes the offer for accepted and would read nothing more, so that the body is left to another.
        """
        if self._arriving is not None:
            self._parser = httptools.HttpRequestParser(BodyAlone(self.on_body, self.on_message_complete))
            self.data_received(head_of_body_alone(self._arriving) + rest)

    def _take_known(self, data: bytes, known: KnownHead) -> bool:
        """Take a request that has come whole, under a head known from the one before; False leaves it to the parser.

        The parser sees either all of a message or nothing of it, so it does not notice.
        """
        body = known.find_body(data)
        if body is None or self._waiting or self._is_paused:
            return False
        self._is_answered = self._is_streaming = self._wants_body = False
        self.deadline = _FOREVER
        request = self._request = self._pattern.repeat(body)
        self._begin(request)
        return True

    def _learn_head(self, data: bytes, request: Request) -> None:
        """Remember a head for the next request. A client whose heads always differ is not worth the trouble."""
        self._unlearned = None
        if self._lessons_left and b"expect" not in request.headers and request.keeps_alive:
            self._lessons_left -= 1
            if not request.is_chunked and request.content_length:
                self._known_head = KnownHead.learn(data, request.content_length)
                self._pattern = request.repeat(b"")

    def _is_head_too_large(self, data: bytes) -> bool:
        limit = self._settings.gateway_header_bytes_max - self._head_bytes
        return len(data) > limit and data.find(b"\r\n\r\n", 0, limit) < 0

    def eof_received(self) -> bool:
        """The client will send no more. It may still read (half-close) or be gone: only a write can tell."""
        self._has_eof = True
        if self._exchange is None or self._request is None or not self._request.is_complete or self._request.is_http10:
            return False
        self._probe()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Asyncio."""
        self._connections.discard(self)
        self.deadline = _FOREVER
        self._waiting.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._pipeline.abandon(exchange)

    def pause_writing(self) -> None:
        """asyncio: the client takes less than we have for it."""
        self._is_paused = True
        self._unwritten_before = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self._settings.gateway_write_timeout_s
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.pause()

    def resume_writing(self) -> None:
        """asyncio: the client has caught up."""
        self._is_paused = False
        self.deadline = _FOREVER
        if self._exchange is None:
            self.deadline = self._loop.time() + self._settings.gateway_keepalive_s
        if self._waiting:
            self._loop.call_soon(self._start_waiting)
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.resume()

    # -------------------------------------------------------------- httptools: a request arrives

    def on_message_begin(self) -> None:
        """httptools: nothing is served of what the same bytes hold behind the last request that will be answered."""
        is_last_behind = self._closes_after or self._late_refusal is not None
        self._arriving = None if is_last_behind else Request()

    def on_url(self, url: bytes) -> None:
        """httptools: may come in pieces."""
        if self._arriving is not None:
            self._arriving.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        if self._arriving is not None:
            take_header(self._arriving, name.lower(), value)

    def on_headers_complete(self) -> None:
        """httptools: the head is whole; the request can be judged before its body comes."""
        request = self._arriving
        if request is None:
            return
        parser = self._parser
        request.method = parser.get_method().decode("latin-1")
        request.is_http10 = parser.get_http_version() != "1.1"
        request.keeps_alive = parser.should_keep_alive() and not request.is_http10 and not parser.should_upgrade()
        judge_head(request)
        self._in_head = False
        if self._begins_head:  # what follows in the same bytes begins elsewhere
            self._begins_head = False
            self._unlearned = request
        self._head_bytes = 0
        if self._request is None and not self._waiting and not self._is_paused:
            self._start(request)
        else:
            self._waiting.append(request)
            if len(self._waiting) >= _WAITING_MAX:
                self._pause_reading()

    def on_body(self, data: bytes) -> None:
        """httptools: decoded bytes of the body."""
        request = self._arriving
        if request is None:
            return
        request.body_bytes += len(data)
        if request is self._request and self._held_answer is not None:
            return  # it has been refused already
        if request.body_bytes > self._settings.gateway_body_bytes_max:
            request.body = b""  # `receive` refuses it by its size
            if request is self._request and self._wants_body:
                self._wants_body = False
                self._resume_exchange()
            return
        if not request.body:
            request.body = data
            return
        if isinstance(request.body, bytes):
            request.body = bytearray(request.body)
        before = len(request.body)
        request.body += data
        if len(request.body) // _BODY_STEP_BYTES > before // _BODY_STEP_BYTES:
            self.deadline = self._loop.time() + self._settings.gateway_body_timeout_s

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        if self._parser.should_upgrade() and self._arriving is not None:
            return  # `_pass_over_upgrade` comes next
        request, self._arriving = self._arriving, None
        self._in_head = True
        if request is None:
            return
        request.is_complete = True
        if request is not self._request:
            return
        self.deadline = _FOREVER
        if self._held_answer is not None:
            self._write_held()
        elif self._wants_body:
            self._wants_body = False
            self._resume_exchange()

    # -------------------------------------------------------------- one request after another

    def _start(self, request: Request) -> None:
        self._is_answered = self._is_streaming = self._wants_body = False
        self.deadline = _FOREVER if request.is_complete else self._loop.time() + self._settings.gateway_body_timeout_s
        if request.fault is not None:
            self._waiting.clear()
            self._refuse_protocol(malformed_http(request.fault))
            return
        self._request = request
        if not request.is_complete and not request.is_chunked and not request.content_length:
            request.is_complete = True  # no body will come; on_message_complete follows at once
        self._begin(request)

    def _begin(self, request: Request) -> None:
        exchange = self._pipeline.begin(request, self)
        if not exchange.is_over:
            self._exchange = exchange
            if self._has_eof:
                self._pipeline.abandon(exchange)

    def end_if_run_out(self) -> None:
        """End an answer that used up what was reserved for it. Told now and then by the worker's clock."""
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.end_if_run_out()

    def _resume_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    @property
    def exchange(self) -> Exchange | None:
        """What is being answered."""
        return self._exchange

    def exchange_over(self) -> None:
        """The exchange has been settled and recorded: on to the next."""
        self._exchange = None
        if not self._is_answered:
            if not self._transport.is_closing():
                self._transport.abort()
            return
        if self._held_answer is None:
            self._next_request()

    def _next_request(self) -> None:
        if self._closes_after:
            self._linger()
            return
        self._request = None
        if self._gateway.is_draining:
            self._transport.close()
            return
        if not self._is_paused:  # else the deadline is that of the answer that is not taken
            self.deadline = self._gateway.clock.monotonic + self._settings.gateway_keepalive_s
        if self._waiting:
            self._loop.call_soon(self._start_waiting)
        elif self._late_refusal is not None:
            self._refuse_protocol(self._late_refusal)
        elif self._has_eof:
            self._transport.close()

    def _start_waiting(self) -> None:
        if self._request is not None or self._is_paused or not self._waiting or self._transport.is_closing():
            return
        request = self._waiting.popleft()
        if len(self._waiting) < _WAITING_MAX and not self._is_reading:
            self._resume_reading()
        self._start(request)

    def _pause_reading(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    # -------------------------------------------------------------- Client: answers

    @property
    def streams_chunked(self) -> bool:
        """See Client."""
        return self._request is not None and not self._request.is_http10

    def expect_body(self) -> None:
        """See Client."""
        self._wants_body = True
        request = self._request
        if request is not None and b"expect" in request.headers and not request.body_bytes and not request.is_http10:
            self._transport.write(_CONTINUE)

    def answer(
        self, status: int, headers: bytes, body: bytes | bytearray, content_type: bytes = b"application/json"
    ) -> None:
        """See Client."""
        request = self._request
        if request is None or self._transport.is_closing():
            return
        self._is_answered = True
        if not request.is_complete or not request.keeps_alive or self._gateway.is_draining:
            self._decide_closing(request)
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
            self._status_line(status),
            content_type,
            len(body),
            headers,
            self._common_headers(request),
        )
        parts: list[bytes | bytearray] = [head] if request.method == "HEAD" else [head, body]
        if request.is_complete or self._closes_after:
            self._write(parts)
        else:
            self._held_answer = parts

    def begin_stream(self, status: int, headers: bytes, first: bytes) -> None:
        """See Client."""
        request = self._request
        if request is None:
            return
        self._is_streaming = True
        self._decide_closing(request)
        head = (
            b"%bcontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
            b"%b%b%b\r\n"
            % (
                self._status_line(status),
                headers,
                self._common_headers(request),
                b"" if request.is_http10 else b"transfer-encoding: chunked\r\n",
            )
        )
        if first:
            self.stream(head + first)
        else:
            self._transport.write(head)

    def stream(self, data: bytes) -> None:
        """See Client."""
        if data:
            self._transport.write(data)

    def end_stream(self) -> None:
        """See Client."""
        self._is_answered = True
        self._is_streaming = False

    def abort(self) -> None:
        """See Client."""
        self._transport.abort()

    def _status_line(self, status: int) -> bytes:
        return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status

    def _common_headers(self, request: Request) -> bytes:
        lines = self._gateway.clock.date_line
        if self._closes_after:
            lines += b"connection: close\r\n"
        if b"origin" in request.headers and self._settings.gateway_cors_origins:
            lines += cors_headers(request, self._settings.gateway_cors_origins)
        return lines

    def _decide_closing(self, request: Request) -> None:
        """Close after this answer when the peer asks for it, or when what is still to come is not worth reading."""
        if not request.keeps_alive or self._gateway.is_draining:
            self._closes_after = True
        elif not request.is_complete:
            expects = b"expect" in request.headers and not request.body_bytes
            length = request.content_length
            if expects or length is None or length > _DRAINED_BODY_BYTES_MAX:
                self._closes_after = True

    def _write(self, parts: list[bytes | bytearray]) -> None:
        if len(parts[-1]) < _JOINED_BYTES_MAX:
            self._transport.write(b"".join(parts))
        else:
            for part in parts:
                self._transport.write(part)

    def _write_held(self) -> None:
        parts, self._held_answer = self._held_answer, None
        if parts is not None:
            self._write(parts)
        if self._exchange is None:
            self._next_request()

    # -------------------------------------------------------------- when it ends

    def _refuse_protocol(self, refusal: Refusal) -> None:
        """Answer what is no request of HTTP, after the answers before it, and close: nothing behind it can be trusted."""
        if self._transport.is_closing():
            return
        broken, self._arriving = self._arriving, None
        if broken is not None and broken is self._request and self._exchange is not None:
            self._closes_after = True
            self._wants_body = False
            self._pipeline.refuse(self._exchange, refusal)
            return
        self._waiting = deque(request for request in self._waiting if request is not broken)
        if self._waiting or (self._request is not None and self._request is not broken):
            self._late_refusal = refusal
            return
        self._closes_after = True
        body = refusal.body()
        self._transport.write(
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nopenai-processing-ms: 0\r\n"
            b"%bconnection: close\r\n\r\n%b"
            % (
                self._status_line(refusal.status),
                len(body),
                request_id_of(uuid7()).encode(),
                self._gateway.clock.date_line,
                body,
            )
        )
        self._pipeline.refuse_protocol(refusal)
        self._linger()

    def _linger(self) -> None:
        """Close without a reset that would take the answer with it: say that nothing more comes, read on for a moment."""
        if self._transport.is_closing():
            return
        request = self._request
        if self._has_eof or (request is not None and request.is_complete):
            self._transport.close()
            return
        self._is_lingering = True
        self.deadline = self._loop.time() + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _probe(self) -> None:
        """Find out whether a client that has closed its side is still there.

        One that is gone answers a write with a reset. A half-closed one skips an interim answer or a comment.
        """
        if self._exchange is None or self._transport.is_closing():
            return
        self._transport.write(_PROBE_IN_STREAM if self._is_streaming else _CONTINUE)
        self._loop.call_later(_PROBE_FIRST_S, self._look_after_probe, _PROBE_FIRST_S)

    def _look_after_probe(self, waited_s: float) -> None:
        if self._transport.is_closing() or self._exchange is None:
            return
        sock = self._transport.get_extra_info("socket")
        try:
            state = struct.unpack("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]
        except (OSError, AttributeError):
            return
        if state in _TCP_CLOSED_STATES:
            self._transport.abort()
        elif waited_s < _PROBE_LAST_S:  # the reset may have a long way to come
            self._loop.call_later(waited_s, self._look_after_probe, waited_s * 2)

    def deadline_passed(self) -> None:
        """Told by the worker's clock once `deadline` is over."""
        self.deadline = _FOREVER
        if self._is_lingering:
            self._transport.abort()
        elif self._is_paused:
            self._check_write_progress()
        elif self._request is None and self._head_bytes == 0:
            self._transport.close()
        elif self._exchange is not None:
            if self._wants_body:
                self._wants_body = False
                self._closes_after = True
                self._pipeline.refuse(self._exchange, malformed_http("The request's body did not arrive in time.", 408))
        elif self._held_answer is not None:
            self._closes_after = True
            self._write_held()
        else:
            self._refuse_protocol(malformed_http("The request did not arrive in time.", 408))

    def _check_write_progress(self) -> None:
        unwritten = self._transport.get_write_buffer_size()
        if unwritten >= self._unwritten_before:
            self._transport.abort()
            return
        self._unwritten_before = unwritten
        self.deadline = self._loop.time() + self._settings.gateway_write_timeout_s

    def drain(self) -> None:
        """The worker is going down: close when nothing is being answered."""
        if self._request is None and self._arriving is None:
            self._transport.close()

    def cut(self) -> None:
        """The worker will not wait any longer: end what is being answered with an error."""
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.abort("draining")
        if not self._transport.is_closing():
            self._transport.close()
