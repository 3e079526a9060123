"""One JSON line per request on standard output. Keys and prompts are never in it."""

import asyncio
import os
import random
from typing import Final

import msgspec

from ias.gateway.exchange import Exchange
from ias.gateway.record_lines import RecordLines, Timing

_NAME_LENGTH_MAX: Final = 256


class AccessLine(msgspec.Struct, omit_defaults=True):
    """What is written of one request."""

    time: str
    request_id: str
    method: str
    path: str
    status: int
    outcome: str
    duration_ms: float
    ttft_ms: float | None = None
    org_id: str | None = None
    project_id: str | None = None
    api_key_id: str | None = None
    model: str = ""
    backend_id: str | None = None
    streamed: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    code: str | None = None
    denied_by: str | None = None
    attempts: list[str] = []


class AccessLog:
    """Writes the lines of one loop turn at once: fewer writes were measured to save nothing, and would lose lines.

    `share` is the part of the successful requests that is written.
    """

    def __init__(self, *, enabled: bool, share: float, fd: int = 1) -> None:
        self._enabled = enabled
        self._share = share
        self._fd = fd
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[str] = []
        self.lost = 0

    def write(self, exchange: Exchange, timing: Timing) -> None:
        """Write a request's line, when it is one to be written."""
        if self._is_wanted(exchange):
            self._append(self._encode(_line(exchange, timing)).decode() + "\n")

    def write_served(self, exchange: Exchange, lines: RecordLines, timing: Timing) -> None:
        """The same for a request that was served at the first attempt, whose line is laid out."""
        if self._is_wanted(exchange):
            self._append(lines.access_line(exchange, timing))

    def _is_wanted(self, exchange: Exchange) -> bool:
        if not self._enabled:
            return False
        return self._share >= 1.0 or exchange.status != 200 or random.random() < self._share  # noqa: S311 - sampling

    def _append(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has gathered."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            os.write(self._fd, "".join(lines).encode())
        except OSError:  # nobody reads; requests matter more
            self.lost += len(lines)


def asked_model(exchange: Exchange) -> str:
    """The name of a model that the caller may not use or that is none."""
    return "" if exchange.peek is None else (exchange.peek.model or "")[:_NAME_LENGTH_MAX]


def _line(exchange: Exchange, timing: Timing) -> AccessLine:
    request, principal, backend, usage = exchange.request, exchange.principal, exchange.backend, exchange.usage
    return AccessLine(
        time=timing.occurred_at,
        request_id=exchange.request_id,
        method=request.method,
        path=exchange.endpoint.path or request.path.partition(b"?")[0].decode("latin-1"),
        status=exchange.status,
        outcome=exchange.outcome,
        duration_ms=round(timing.duration_s * 1000, 3),
        ttft_ms=None if timing.ttft_s is None else round(timing.ttft_s * 1000, 3),
        org_id=None if principal is None else principal.key.org_id,
        project_id=None if principal is None else principal.key.project_id,
        api_key_id=None if principal is None else principal.key.key_id,
        model=exchange.model or asked_model(exchange),
        backend_id=None if backend is None else backend.id,
        streamed=exchange.streamed,
        input_tokens=0 if usage is None else usage.input_tokens,
        output_tokens=0 if usage is None else usage.output_tokens,
        cost_nano_usd=exchange.cost_nano_usd,
        code=exchange.error_code,
        denied_by=exchange.denied_by,
        attempts=exchange.attempts,
    )
