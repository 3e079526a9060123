"""One JSON line per request, under the request id that came with it, so that a request can be followed into the engine.

A line of inference says what was served: the tokens that were reported with what was sent. That is the engine's own count, for the
platform's books to be held against. The other fields are those of the platform's logs. Nothing of a request's content is logged.
Probes (`/health`, `/metrics`) that succeed are not: they would drown the rest.
"""

import time
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PROBES = frozenset({"/health", "/metrics"})
_REQUEST_ID_LENGTH_MAX = 128

_encode = msgspec.json.Encoder().encode
_SERVED = "ias.engine.served"


def note_served(request: Request, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
    """Say what a request was served so far; its line tells the last word of it."""
    request.scope[_SERVED] = {
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "completion_tokens": completion_tokens,
    }


class RequestLog:
    """The ASGI middleware that writes to a stream."""

    def __init__(self, app: ASGIApp, stream: TextIO) -> None:
        self._app = app
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault(_SERVED, {})
        started = time.perf_counter()
        status, complete = 500, False

        async def watch(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, watch)
        finally:
            if scope["path"] not in _PROBES or status >= 400:
                self._write(scope, status, time.perf_counter() - started, complete=complete)

    def _write(self, scope: Scope, status: int, duration_s: float, *, complete: bool) -> None:
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        line: dict[str, Any] = {
            "event": "request",
            "level": "info" if status < 500 else "error",
            "logger": "ias.engine",
            "timestamp": datetime.now(UTC).isoformat(),
            "process": "engine",
            "request_id": request_id[:_REQUEST_ID_LENGTH_MAX] or None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "complete": complete,
            "duration_ms": round(duration_s * 1000, 1),
            **scope[_SERVED],
        }
        try:
            self._stream.write(_encode(line).decode() + "\n")
            self._stream.flush()
        except OSError:
            return  # a full disk, or a reader that went away, is no reason to refuse a request
