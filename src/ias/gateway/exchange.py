"""One request on its way through the stages: what each of them found out."""

from collections.abc import Callable, Iterator
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ias.contracts.events import Outcome
from ias.contracts.ids import REQUEST_ID_PREFIX
from ias.contracts.routes import Backend, ModelRoute
from ias.contracts.spending import Price

if TYPE_CHECKING:
    from ias.gateway.admission_plan import AdmissionPlan
    from ias.gateway.authenticate import Credentials
    from ias.gateway.context import Gateway
    from ias.gateway.endpoints import Endpoint
    from ias.gateway.known_body import KnownBody
    from ias.gateway.pipeline import Pipeline
    from ias.gateway.read_body import Reading
    from ias.gateway.relay import Relay
    from ias.gateway.routers import Desk
    from ias.gateway.routing.asks import Ask
    from ias.gateway.routing.fair_queue import Waiting
    from ias.gateway.routing.loads import Load, Place
    from ias.gateway.snapshots import Principal
    from ias.gateway.token_counts import TokenCounts
    from ias.gateway.tracing import Trace


class Progress(Enum):
    """What a stage says when it returns."""

    NEXT = "next"
    WAIT = "wait"
    """Something else goes on first; `exchange.resume()` is called when it is done."""


NEXT: Final = Progress.NEXT
WAIT: Final = Progress.WAIT

Stage = Callable[["Exchange", "Gateway"], Progress]

BODY_LESSONS_MAX: Final = 8
"""Bodies under one head whose shape is remembered, each in place of the one before, until that is given up."""


class Plan(NamedTuple):
    """What follows from a request's head alone: where it goes and through which stages."""

    endpoint: "Endpoint"
    stages: tuple[Stage, ...]


class HeadNotes:
    """What was found out about a head and the bodies under it: shared by all requests of a connection that repeat it."""

    __slots__ = ("credentials", "known_body", "lessons_left", "plan")

    def __init__(self) -> None:
        self.plan: Plan | None = None
        """Set when the first of them begins."""
        self.credentials: Credentials | None = None
        """Set by `authenticate`."""
        self.known_body: KnownBody | None = None
        """Set by `authorize`, for the second of them and later ones."""
        self.lessons_left = BODY_LESSONS_MAX


class Request:
    """What the client sent. `body` grows until `is_complete`."""

    # Most requests have most of these values: what differs is set on the instance.
    method = ""
    path = b""
    body: bytes | bytearray = b""
    body_bytes = 0
    content_length: int | None = None
    is_chunked = False
    is_complete = False
    is_http10 = False
    keeps_alive = True
    hosts = 0
    """How many Host headers it has."""
    fault: str | None = None
    """Why its head cannot be served."""
    is_repeat = False
    """Whether its head was known."""
    notes: HeadNotes

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.notes = HeadNotes()

    def repeat(self, body: bytes) -> "Request":
        """A request with the same head, HTTP/1.1 and complete, and another body.

        Nobody changes what a head says, or what was found out from it, so it is shared.
        """
        again = Request.__new__(Request)
        again.method = self.method
        again.path = self.path
        again.headers = self.headers
        again.notes = self.notes
        again.is_complete = again.is_repeat = True
        again.body = body
        again.body_bytes = again.content_length = len(body)
        return again


class Client(Protocol):
    """The connection that an exchange answers on."""

    def answer(
        self, status: int, headers: bytes, body: bytes | bytearray, content_type: bytes = b"application/json"
    ) -> None:
        """Send a whole answer."""

    def begin_stream(self, status: int, headers: bytes, first: bytes) -> None:
        """Send the head of a streamed answer, with its first bytes if there are any yet: each write is a system call."""

    def stream(self, data: bytes) -> None:
        """Send bytes of a streamed answer, chunk framing included where `streams_chunked`."""

    def end_stream(self) -> None:
        """The streamed answer is complete."""

    def abort(self) -> None:
        """Close without a further word: the answer cannot be completed."""

    def exchange_over(self) -> None:
        """The exchange has been settled and recorded."""

    def expect_body(self) -> None:
        """Let the request's body come."""

    @property
    def streams_chunked(self) -> bool:
        """Whether streamed answers are framed in chunks."""

    peer_address: str
    """The client's IP address."""


class Exchange:
    """State of one request.

    A stage reads what earlier stages have set and sets its own; names without a value here exist only after the stage
    that sets them.
    """

    # connection
    request: Request
    client: Client
    record_hex: str
    """The usage record's id, a UUIDv7 in hexadecimal; the client sees it as `request_id`."""
    record_id: str
    """The same with hyphens, as the record has it."""
    made_at: float
    """When that was, in Unix seconds: the moment the books go by."""
    endpoint: "Endpoint"
    stages: Iterator[Stage]
    continuation: Stage | None = None
    """What to go on with before the next stage."""
    reply: Any = None
    """What the continuation waits for."""
    # authenticate
    principal: "Principal | None" = None
    # authorize
    reading: "Reading"
    peek: Any = None
    """What `reading` was made of."""
    model: str = ""
    route: ModelRoute
    notice: bytes = b""
    """What the client is told of a deprecated model, as header lines."""
    streamed: bool = False
    # admit
    price: Price | None = None
    plan: "AdmissionPlan | None" = None
    reserved_nano_usd: int = 0
    is_unguarded: bool = False
    """Let through while Redis was away, by the org's own allowance."""
    may_hold_reservation: bool = False
    """From the moment a reservation is asked for until it is refused or settled."""
    reservation_tries: int = 0
    remaining_nano_usd: int | None = None
    expected_tokens: int = 0
    limit_headers: bytes = b""
    """What is left of the rate limits, as header lines."""
    output_tokens_max: int | None = None
    """What the request's limit on output tokens must be replaced by; None leaves it."""
    # route, relay
    desk: "Desk | None" = None
    backend: Backend | None = None
    load: "Load | None" = None
    """What the worker has at that backend."""
    ask: "Ask | None" = None
    """What routing was told, where there was anything to decide."""
    place: "Place | None" = None
    waiting: "Waiting | None" = None
    """While it waits for a place."""
    queue_wait_s: float = 0.0
    backend_lines: bytes = b""
    """Header lines that tell the backend."""
    attempts: list[str]
    relay: "Relay | None" = None
    usage: "TokenCounts | None" = None
    outcome: Outcome = "failed"
    was_cut_off: bool = False
    """Whether it used up what was reserved for it (see `run_out`)."""
    was_served: bool = False
    """Whether a backend has begun to answer with success, or was at work when the client left: tokens are billed."""
    # the answer
    status: int = 0
    error_code: str | None = None
    denied_by: str | None = None
    """The budget or rate limit that refused the request."""
    is_gone: bool = False
    """The client has left."""
    is_over: bool = False
    first_byte_at: float | None = None
    # tracing
    trace: "Trace | None" = None
    """Its spans, while an OTLP endpoint is set."""
    # settle
    cost_nano_usd: int = 0

    def __init__(self, pipeline: "Pipeline", request: Request, client: Client, ids: tuple[str, str, float]) -> None:
        self._pipeline = pipeline
        self.request = request
        self.client = client
        self.record_hex, self.record_id, self.made_at = ids
        self.request_id = REQUEST_ID_PREFIX + self.record_hex
        self.started = perf_counter()
        self.attempts = []

    def resume(self) -> None:
        """Go on: with `continuation`, if a stage has left one, then with the next stages."""
        self._pipeline.advance(self)

    def answer_headers(self) -> bytes:
        """The header lines that every answer carries. The first byte goes out now."""
        self.first_byte_at = now = perf_counter()
        return b"x-request-id: %b\r\nopenai-processing-ms: %d\r\n%b%b%b" % (
            self.request_id.encode(),
            int((now - self.started) * 1000),
            self.backend_lines,
            self.limit_headers,
            self.notice,
        )

    def answer(
        self, status: int, body: bytes | bytearray, *, headers: bytes = b"", content_type: bytes = b"application/json"
    ) -> None:
        """Answer as a whole."""
        self.status = status
        self.client.answer(status, self.answer_headers() + headers, body, content_type)
