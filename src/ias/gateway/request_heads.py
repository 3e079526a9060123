"""What a request's head says, header by header, and whether it can be served at all."""

from typing import Final

from ias.gateway.exchange import Request

_KEPT: Final = frozenset(
    {
        b"authorization",
        b"api-key",
        b"x-api-key",
        b"content-encoding",
        b"expect",
        b"origin",
        b"access-control-request-headers",
        b"openai-organization",
        b"openai-project",
        b"x-forwarded-for",
        b"idempotency-key",
        b"x-session-id",
        b"x-ias-priority",
        b"traceparent",
        b"tracestate",
    }
)
_TRANSFER_ENCODING_FAULT: Final = "The request's Transfer-Encoding is not supported."


def take_header(request: Request, name: bytes, value: bytes) -> None:
    """Note one header, its name in small letters. Those that nothing goes by are dropped."""
    if name in _KEPT:
        known = request.headers.get(name)
        request.headers[name] = value if known is None else known + b", " + value
    elif name == b"content-length":
        request.content_length = int(value)
    elif name == b"transfer-encoding":
        request.is_chunked = True
        if value.lower() != b"chunked":
            request.fault = _TRANSFER_ENCODING_FAULT
    elif name == b"host":
        request.hosts += 1


def judge_head(request: Request) -> None:
    """Find the fault of a head that is whole (RFC 9112, sections 3.2 and 6.1)."""
    if request.is_http10 and request.is_chunked:
        request.fault = _TRANSFER_ENCODING_FAULT
    elif not request.is_http10 and request.hosts != 1:
        request.fault = "A request needs one Host header."
