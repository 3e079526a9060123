"""Bodies in and out."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ias.engine.protocol import EngineError

BODY_BYTES_MAX = 64 * 1024 * 1024

encode = msgspec.json.Encoder().encode


async def read_body(request: Request) -> bytes:
    """A request's body.

    Raises:
        EngineError: it is too large.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise EngineError(413, "RequestEntityTooLarge", f"The body is over {BODY_BYTES_MAX} bytes.")
    return bytes(body)


def json_response(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encode(body), status_code=status, media_type="application/json")


def metrics_response(text: bytes) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + encode(body) + b"\n\n"
