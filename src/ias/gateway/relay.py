"""Stage 6, relay: the request to a backend, its answer to the client.

Until the client has been sent a byte, another backend may be tried. From then on the answer is completed or ended with
an error event; it is never cut silently. An answer that is not streamed is held until it is whole, so it is either sent
complete or not at all.
"""

import asyncio
import random
import zlib
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final, Literal

import msgspec

from ias.contracts.routes import Backend
from ias.gateway import reasoning
from ias.gateway.context import Gateway
from ias.gateway.errors import Refusal, encode_error, unavailable, upstream_failed
from ias.gateway.estimates import estimate_abandoned, estimate_answer, estimate_stream
from ias.gateway.event_stream import BrokenStreamError, EventStream, Framing, Rewrite
from ias.gateway.exchange import WAIT, Exchange, Progress
from ias.gateway.json_splice import edit_object
from ias.gateway.normalise import refusal_of
from ias.gateway.read_usage import NoJsonObjectError, read_answer_usage
from ias.gateway.route import make_ask, note_wait, take_place
from ias.gateway.routers import backend_lines
from ias.gateway.routing.loads import Place
from ias.gateway.run_out import CODE, MESSAGE, closing_events, has_run_out
from ias.gateway.token_counts import TokenCounts
from ias.gateway.upstream import EVENT_STREAM, PoolFullError, UpstreamConnection, UpstreamHead

_ERROR_BYTES_MAX: Final = 1_048_576
_RETRIED_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
_FAILED_STATUSES: Final = frozenset({500, 502, 503, 504})
_RETRY_PAUSE_MAX_S: Final = 0.05
_LINGER_S: Final = 1.0
"""How long a backend may take to end its body after [DONE] before its connection is closed."""

Cut = Literal["client_gone", "draining"]


def relay(exchange: Exchange, gateway: Gateway) -> Progress:
    """Send the request; the answer is relayed by callbacks, and the exchange resumed when it is over."""
    backend = exchange.backend
    if backend is None:
        raise AssertionError("relay needs a backend")
    exchange.relay = Relay(exchange, gateway, backend)
    exchange.relay.start()
    return WAIT


class Relay:
    """The Receiver of one exchange."""

    # What most requests never change.
    _connection: UpstreamConnection | None = None
    _connecting: asyncio.Task[None] | None = None
    _head: UpstreamHead | None = None
    _stream: EventStream | None = None
    _body: bytes | bytearray = b""
    _has_begun = False
    """Whether the client has been sent an event, or an error in its place."""
    _has_opened = False
    """Whether it has been sent the head of a stream whose first event has yet to come."""
    _is_over = False
    _is_paused = False
    _retried_stale = False

    def __init__(self, exchange: Exchange, gateway: Gateway, backend: Backend) -> None:
        self._exchange = exchange
        self._gateway = gateway
        self._backend = backend
        self.backend_id = backend.id
        self._pool = gateway.upstreams.pool(backend.url)
        self._policy = policy = exchange.route.policy
        timeout_s = policy.total_timeout_s or gateway.settings.gateway_total_timeout_s
        self._total_deadline = gateway.clock.monotonic + timeout_s

    # -------------------------------------------------------------- to the backend

    def start(self) -> None:
        """Send the request to the backend, on an idle connection or a new one.

        Raises:
            Refusal: neither this backend nor another can take it.
        """
        try:
            connection = self._pool.take_idle()
        except PoolFullError:
            self._exchange.attempts.append(f"{self._backend.id}: full")
            self._try_another(unavailable("All servers of the model are busy.", "overloaded"))
            return
        if connection is not None:
            self._send(connection)
        else:
            self._connect(pause_s=0.0)

    def _connect(self, *, pause_s: float) -> None:
        self._head, self._body = None, b""  # of the attempt before
        self._connecting = asyncio.get_running_loop().create_task(self._open(pause_s), name="connect-backend")

    async def _open(self, pause_s: float) -> None:
        try:
            if pause_s:
                await asyncio.sleep(pause_s)
            connection = await self._pool.connect()
        except (OSError, TimeoutError):
            self._connecting = None
            self._proceed_after("refused")
            return
        self._connecting = None
        if self._is_over:  # cancelled too late to be stopped
            self._pool.put_back(connection)
        else:
            self._guard(lambda: self._send(connection))

    def _send(self, connection: UpstreamConnection) -> None:
        requests, backend = self._gateway.upstream_requests, self._backend
        self._connection = connection
        body = requests.body(self._exchange, backend)
        head = requests.head(self._exchange, backend, self._pool, len(body))
        connection.send(self, head, body, self._total_deadline, self._policy.first_byte_timeout_s)
        if self._is_paused:
            connection.pause()

    # -------------------------------------------------------------- from the backend (Receiver)

    def head_received(self, head: UpstreamHead) -> bool:
        """See Receiver."""
        self._head = head
        if head.status != 200:
            return False
        self._succeeded()
        if not self._exchange.streamed or not head.content_type.startswith(EVENT_STREAM):
            return False
        if head.content_encoding not in (b"", b"identity"):
            return False  # told apart when the body is whole
        exchange = self._exchange
        framing: Framing = "chunked" if head.is_chunked else "close" if head.content_length is None else "length"
        options = exchange.peek.stream_options or None
        self._stream = EventStream(
            Rewrite(
                client_wants_usage=options is not None and options.include_usage is True,
                client_wants_continuous=options is not None and options.continuous_usage_stats is True,
                upstream_model=self._backend.upstream_model,
                public_model=exchange.reading.model,
                names_reasoning_twice=self._backend.vllm_extensions,
            ),
            framing=framing,
            chunk_output=exchange.client.streams_chunked,
            named_events=exchange.endpoint.has_named_events,
            event_bytes_max=self._gateway.settings.gateway_event_bytes_max,
            length=head.content_length or 0,
        )
        return True

    def raw_received(self, data: bytes) -> bool:
        """See Receiver: a stream's bytes."""
        stream = self._stream
        if stream is None:
            return True
        if self._has_begun and stream.passes(data):
            self._exchange.client.stream(data)
            return False
        try:
            output = stream.feed(data)
        except BrokenStreamError:
            self._drop_connection()
            self.answer_failed("malformed")
            return False
        if not self._is_over:
            if self._has_begun:
                self._exchange.client.stream(output)
            elif output:
                self._stream_out(output)
            if stream.done:
                self._finish_stream()
            elif stream.body_ended:
                self._finish_body()
        return stream.body_ended

    def body_received(self, data: bytes) -> None:
        """See Receiver: an answer that is collected."""
        if not self._body:
            self._body = data
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data
        is_success = self._head is not None and self._head.status == 200
        if len(self._body) > (self._gateway.settings.gateway_answer_bytes_max if is_success else _ERROR_BYTES_MAX):
            self._drop_connection()
            self.answer_failed("malformed")

    def whole_received(self, head: UpstreamHead, body: bytes) -> None:
        """See Receiver."""
        self._head, self._body = head, body
        self._succeeded()
        self._guard(self._finish_whole)

    def answer_ended(self) -> None:
        """See Receiver."""
        if self._is_over:
            return
        if self._stream is not None:
            if self._head is not None and (self._head.is_chunked or self._head.content_length is not None):
                self.answer_failed("lost")  # closed before the end of the body
            else:
                self._finish_body()
            return
        self._guard(self._finish_whole)

    def answer_failed(self, reason: str) -> None:
        """See Receiver."""
        if not self._is_over:
            self._proceed_after(reason)

    # -------------------------------------------------------------- streams

    def _stream_out(self, output: bytes) -> None:
        exchange = self._exchange
        if not self._has_begun:
            self._has_begun = exchange.was_served = True
            if exchange.place is not None and exchange.desk is not None:
                self._gateway.routers.begin(exchange.desk, exchange.place)
            if not self._has_opened:
                self._open_stream(output)
                return
            exchange.first_byte_at = perf_counter()
        exchange.client.stream(output)

    def _open_stream(self, first: bytes) -> None:
        self._exchange.status = 200
        self._exchange.client.begin_stream(200, self._exchange.answer_headers(), first)

    def waits_for_event(self) -> bool:
        """Whether a comment may be sent now; the head goes out first where no event has come yet.

        A backend that has begun a stream has taken the request, so 200 is no lie. It is not replaced by another from then on.
        """
        stream = self._stream
        if self._is_over or stream is None or stream.done:
            return False
        if not self._has_begun and not self._has_opened:
            self._has_opened = True
            self._open_stream(b"")
        return True

    def _finish_body(self) -> None:
        """The stream's body has ended without [DONE]: it was complete but for that, or it was cut."""
        stream = self._stream
        if stream is None:
            return
        tail = stream.finish()
        if not stream.done:
            self._proceed_after("lost")
            return
        self._stream_out(tail)
        self._finish_stream()

    def _finish_stream(self) -> None:
        stream = self._stream
        if stream is None:
            return
        if self._connection is not None and not stream.body_ended:
            self._connection.allow(_LINGER_S)
        self._exchange.client.end_stream()
        self._finish("failed" if stream.failed else "completed")

    def _end_broken_stream(self, message: str, code: str) -> None:
        stream = self._stream
        if stream is None:
            return
        self._exchange.error_code = code
        self._stream_out(stream.end_with_error(encode_error(message, kind="server_error", code=code)))
        self._exchange.client.end_stream()
        self._finish("failed")

    def end_if_run_out(self) -> None:
        """End a stream that has used up its reservation. Told now and then by the worker's clock."""
        stream, exchange = self._stream, self._exchange
        if stream is None or self._is_over or not self._has_begun or stream.done or not has_run_out(exchange, stream):
            return
        self._drop_connection()
        exchange.was_cut_off = True
        self._gateway.metrics.streams_cut_off += 1
        if exchange.endpoint.has_named_events:
            self._end_broken_stream(MESSAGE, CODE)
            return
        options = exchange.peek.stream_options or None
        with_usage = options is not None and options.include_usage is True
        self._stream_out(stream.end_with_events(closing_events(exchange, stream, with_usage=with_usage)))
        exchange.client.end_stream()
        self._finish("completed")

    # -------------------------------------------------------------- whole answers

    def _finish_whole(self) -> None:
        """Answer with what was collected, or try elsewhere.

        Raises:
            Refusal: the backend's error, in OpenAI's shape.
        """
        head, exchange = self._head, self._exchange
        if head is None:
            raise upstream_failed(502, "The model's server gave no answer.", "upstream_malformed")
        body = self._decode(head) if head.content_encoding else self._body
        if head.status == 200:
            self._answer_with(body)
            return
        refusal = refusal_of(
            head.status,
            body,
            public_model=exchange.reading.model,
            upstream_model=self._backend.upstream_model,
            retry_after=head.retry_after,
        )
        exchange.attempts.append(f"{self._backend.id}: {head.status}")
        if head.status in _FAILED_STATUSES:
            self._failed()
        if head.status not in _RETRIED_STATUSES:
            raise refusal
        self._try_another(refusal)

    def _answer_with(self, body: bytes | bytearray) -> None:
        exchange = self._exchange
        try:
            usage = read_answer_usage(body)
        except NoJsonObjectError:
            self._refuse_answer()
            return
        if exchange.streamed:  # a stream was asked for, and this is none
            self._refuse_answer()
            return
        exchange.usage = usage or estimate_answer(exchange, body)
        exchange.was_served = True
        if self._backend.vllm_extensions and body.find(reasoning.MARK) >= 0:
            body = reasoning.name_twice(body)
        asked_model = exchange.reading.model  # the model's name or an alias of it: the client sees the one it used
        if self._backend.upstream_model != asked_model:
            body = edit_object(body, put={"model": msgspec.json.encode(asked_model)})
        exchange.answer(200, body)
        self._finish("completed")

    def _refuse_answer(self) -> None:
        self._failed()
        refusal = upstream_failed(502, "The model's server gave an unusable answer.", "upstream_malformed")
        self._try_another(refusal, reason="malformed")

    def _decode(self, head: UpstreamHead) -> bytes | bytearray:
        """The body without its content encoding, which we asked the backend not to use."""
        if head.content_encoding == b"identity":
            return self._body
        limit = self._gateway.settings.gateway_answer_bytes_max
        try:
            return zlib.decompressobj(wbits=47).decompress(self._body, limit)
        except zlib.error:
            return b""

    # -------------------------------------------------------------- when it fails

    def _proceed_after(self, reason: str) -> None:
        self._guard(lambda: self._recover(reason))

    def _recover(self, reason: str) -> None:
        """After a failure: the same backend once more for a stale connection, another backend, or an error.

        Raises:
            Refusal: the client is told, since nothing has been sent to it.
        """
        connection, self._connection = self._connection, None
        if self._has_begun or self._has_opened:
            self._failed(reason)
            self._exchange.attempts.append(f"{self._backend.id}: {reason}")
            self._end_broken_stream(*_describe_break(reason))
            return
        self._stream = None
        is_stale = connection is not None and connection.is_reused and not connection.has_answered
        if reason == "lost" and is_stale and not self._retried_stale:
            self._retried_stale = True
            self._connect(pause_s=0.0)
            return
        self._failed(reason)
        if reason in ("first_byte_timeout", "total_timeout"):
            refusal = upstream_failed(504, "The model's server did not answer in time.", "upstream_timeout")
            if reason == "total_timeout":
                self._exchange.attempts.append(f"{self._backend.id}: {reason}")
                raise refusal
        elif reason in ("refused", "disabled"):
            refusal = unavailable("The model's server cannot be reached.", "upstream_unreachable")
        else:
            refusal = upstream_failed(502, "The model's server broke off its answer.", "upstream_failed")
        self._try_another(refusal, reason=reason)

    def _try_another(self, refusal: Refusal, *, reason: str | None = None) -> None:
        """Go to another backend; where there is none, or enough were tried, raise the refusal."""
        exchange, desk = self._exchange, self._exchange.desk
        if reason is not None:
            exchange.attempts.append(f"{self._backend.id}: {reason}")
        if desk is None or len(desk.router.backends) == 1:
            raise refusal
        ask = exchange.ask = exchange.ask or make_ask(exchange, desk)
        ask.tried = (*ask.tried, self._backend.id)
        if exchange.place is not None:
            self._gateway.routers.release(desk, ask, exchange.place)
        if len(ask.tried) >= self._policy.attempts_max:
            raise refusal
        place = self._gateway.routers.acquire(desk, ask)
        if place is not None:
            self.placed(place)
            return
        try:
            exchange.waiting = self._gateway.routers.wait(desk, ask, self)
        except Refusal:
            raise refusal from None  # what went wrong first says more than that there is nobody else

    def placed(self, place: Place) -> None:
        """See Waiter: there is another backend to try."""
        exchange, desk = self._exchange, self._exchange.desk
        note_wait(exchange, self._gateway)
        self._gateway.metrics.upstream_retries += 1
        if desk is None:
            raise AssertionError("a place is at a model's desk")
        take_place(exchange, desk, place)
        backend = desk.router.backends[place.load.backend_id]
        exchange.backend_lines = backend_lines(backend.id, len(exchange.ask.tried) + 1 if exchange.ask else 1)
        self._backend, self.backend_id = backend, backend.id
        self._pool = self._gateway.upstreams.pool(backend.url)
        self._retried_stale = False
        self._connect(pause_s=random.uniform(0.0, _RETRY_PAUSE_MAX_S))  # noqa: S311 - jitter

    def turned_away(self, refusal: Refusal) -> None:
        """See Waiter: there is none in time."""
        note_wait(self._exchange, self._gateway)
        self._guard(partial(_raise, refusal))

    def _succeeded(self) -> None:
        if self._exchange.load is not None:
            self._exchange.load.succeed()

    def _failed(self, reason: str = "") -> None:
        """Others are preferred for a while, unless the backend was only switched off."""
        exchange = self._exchange
        if exchange.load is not None and exchange.desk is not None and reason != "disabled":
            self._gateway.routers.failed(exchange.desk, exchange.load)

    def _guard(self, step: Callable[[], None]) -> None:
        """Run a step; a Refusal, or a fault, becomes the exchange's answer."""
        try:
            step()
        except Exception as refusal:  # noqa: BLE001 - raised again in the exchange, which answers and logs it
            self._is_over = True
            self._drop_connection()
            self._exchange.reply = refusal
            self._exchange.continuation = _raise_reply
            self._exchange.resume()

    # -------------------------------------------------------------- the end

    def _finish(self, outcome: Literal["completed", "failed", "cancelled"]) -> None:
        self._is_over = True
        self._exchange.outcome = outcome
        if self._stream is not None:
            self._take_stream_usage()
        self._exchange.resume()

    def _take_stream_usage(self) -> None:
        counts = self.count_so_far()
        if counts is not None:
            self._exchange.usage = counts

    def count_so_far(self) -> TokenCounts | None:
        """What a stream has passed on: the engine's count, or an estimate where it gave none."""
        stream = self._stream
        if stream is None or not self._exchange.was_served:
            return None
        if stream.usage is not None:
            return stream.usage
        if not stream.first_event:
            return None
        return estimate_stream(
            self._exchange,
            events=stream.events,
            first=stream.first_event,
            last=stream.last_events,
            ended=stream.done and not stream.failed,
        )

    def abort(self, cut: Cut) -> None:
        """Stop the backend at once; what it has made so far counts. For `draining` the client is told."""
        if self._is_over:
            return
        if self._connecting is not None:
            self._connecting.cancel()
        was_sent = self._connection is not None
        self._drop_connection()
        if cut == "draining" and (self._has_begun or self._has_opened):
            self._end_broken_stream("The server is restarting; the answer was cut off.", "draining")
            return
        if cut == "draining":
            self._guard(_raise_draining)
            return
        self._is_over = True
        if was_sent and not self._exchange.was_served:
            self._take_abandoned_usage()
        else:
            self._take_stream_usage()

    def _take_abandoned_usage(self) -> None:
        """The client left while a backend was at work on what nobody has seen any of: not for nothing, but estimated."""
        head, exchange = self._head, self._exchange
        if head is not None and head.status != 200:
            return
        exchange.was_served = True
        exchange.usage = None if self._stream is None else self._stream.usage
        if exchange.usage is None:
            size = 0 if head is None or self._stream is not None else head.content_length or len(self._body)
            exchange.usage = estimate_abandoned(exchange, size)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def pause(self) -> None:
        """The client cannot keep up: let the backend wait."""
        self._is_paused = True
        if self._connection is not None and not self._is_over:
            self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        if self._connection is not None and not self._is_over:
            self._connection.resume()


def _raise_reply(exchange: Exchange, gateway: Gateway) -> Progress:
    """Continuation: what the relay found out is the answer."""
    del gateway
    refusal, exchange.reply = exchange.reply, None
    raise refusal


def _raise(refusal: Refusal) -> None:
    raise refusal


def _raise_draining() -> None:
    raise unavailable("The server is restarting.", "draining")


def _describe_break(reason: str) -> tuple[str, str]:
    """Message and code for an error event."""
    match reason:
        case "idle_timeout":
            return "The model's server stopped sending in the middle of its answer.", "upstream_timeout"
        case "total_timeout":
            return "The answer took longer than the server allows.", "upstream_timeout"
        case "disabled":
            return "The model's server was taken out of service in the middle of its answer.", "upstream_disabled"
        case "malformed":
            return "The model's server sent an answer that cannot be read.", "upstream_malformed"
        case _:
            return "The model's server broke off in the middle of its answer.", "upstream_failed"
