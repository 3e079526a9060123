"""One request on its way through the stages: what each of them found out."""

import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from ias.contracts.events import Outcome
from ias.contracts.ids import REQUEST_ID_PREFIX
from ias.contracts.routes import Backend, ModelRoute
from ias.contracts.spending import Price

if TYPE_CHECKING:
    from ias.gateway.admission_plan import AdmissionPlan
    from ias.gateway.endpoints import Endpoint
    from ias.gateway.pipeline import Stage
    from ias.gateway.relay import Relay
    from ias.gateway.snapshots import Principal
    from ias.gateway.tracing import Trace
    from ias.gateway.usage import TokenCounts


class Progress(Enum):
    """What a stage says when it returns."""

    NEXT = "next"
    WAIT = "wait"
    """Something else goes on first; `exchange.resume()` is called when it is done."""


NEXT = Progress.NEXT
WAIT = Progress.WAIT


class Request:
    """What the client sent. `body` grows until `is_complete`."""

    __slots__ = (
        "body",
        "body_bytes",
        "content_length",
        "headers",
        "is_chunked",
        "is_complete",
        "is_http10",
        "keeps_alive",
        "method",
        "path",
    )

    def __init__(self) -> None:
        self.method = ""
        self.path = b""
        self.headers: dict[bytes, bytes] = {}
        self.body: bytes | bytearray = b""
        self.body_bytes = 0
        self.content_length: int | None = None
        self.is_chunked = False
        self.is_complete = False
        self.is_http10 = False
        self.keeps_alive = True

    def repeat(self) -> "Request":
        """A request with the same head, HTTP/1.1 and complete. Nobody changes headers, so they are shared."""
        again = Request.__new__(Request)
        again.method = self.method
        again.path = self.path
        again.headers = self.headers
        again.is_chunked = again.is_http10 = False
        again.is_complete = again.keeps_alive = True
        return again


class Client(Protocol):
    """The connection that an exchange answers on."""

    def answer(self, status: int, headers: bytes, body: bytes | bytearray, content_type: bytes = ...) -> None:
        """Send a whole answer."""

    def begin_stream(self, status: int, headers: bytes) -> None:
        """Send the head of a streamed answer."""

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
    endpoint: "Endpoint"
    stages: Iterator["Stage"]
    resume: Callable[[], None]
    """Go on: with `continuation`, if a stage has left one, then with the next stages."""
    continuation: "Stage | None" = None
    reply: Any = None
    """What the continuation waits for."""
    # authenticate
    principal: "Principal | None" = None
    # authorize
    peek: Any = None
    model: str = ""
    route: ModelRoute
    streamed: bool = False
    prompts: int = 1
    choices: int = 1
    """Answers the engine makes: each may use all of the output limit."""
    # admit
    price: Price | None = None
    plan: "AdmissionPlan | None" = None
    reserved_nano_usd: int = 0
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
    backend: Backend | None = None
    attempts: list[str]
    relay: "Relay | None" = None
    usage: "TokenCounts | None" = None
    outcome: Outcome = "failed"
    was_served: bool = False
    """Whether a backend has begun to answer with success, or was at work when the client left: tokens are billed."""
    # the answer
    status: int = 0
    error_code: str | None = None
    is_gone: bool = False
    """The client has left."""
    is_over: bool = False
    first_byte_at: float | None = None
    # tracing
    trace: "Trace | None" = None
    """Its spans, while an OTLP endpoint is set."""
    # settle
    cost_nano_usd: int = 0

    def __init__(self, request: Request, client: Client, endpoint: "Endpoint", record_hex: str) -> None:
        self.request = request
        self.client = client
        self.endpoint = endpoint
        self.record_hex = record_hex
        """The usage record's id, a UUIDv7 in hexadecimal; the client sees it as `request_id`."""
        self.request_id = REQUEST_ID_PREFIX + record_hex
        self.started = time.perf_counter()
        self.attempts = []

    def answer_headers(self) -> bytes:
        """The header lines that every answer carries."""
        return b"x-request-id: %b\r\nopenai-processing-ms: %d\r\n%b" % (
            self.request_id.encode(),
            (time.perf_counter() - self.started) * 1000,
            self.limit_headers,
        )

    def answer(
        self, status: int, body: bytes | bytearray, *, headers: bytes = b"", content_type: bytes = b"application/json"
    ) -> None:
        """Answer as a whole."""
        self.status = status
        if self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        self.client.answer(status, self.answer_headers() + headers, body, content_type)
