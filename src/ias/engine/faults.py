"""What goes wrong on purpose, drawn from a seed: the same seed and the same order of requests give the same faults.

Faults are data. What they do is done where it belongs: `server.py` for requests, `operations.py` for probes and metrics,
`process.py` for connections.
"""

import random
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class ErrorFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests are answered with an error."""

    status: Literal[429, 500, 502, 503, 504] = 503
    rate: Chance = 1.0
    """Share of requests it hits; so for all faults."""


class HangFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests are taken and never answered, not even with headers."""

    rate: Chance = 1.0


class StallFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers stop after so many tokens, with the connection open."""

    rate: Chance = 1.0
    after_tokens: Tokens = 1


class CutFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The connection is closed after so many tokens, in the middle of the body."""

    rate: Chance = 1.0
    after_tokens: Tokens = 1


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that goes wrong; the default is nothing."""

    error: ErrorFault | None = None
    hang: HangFault | None = None
    stall: StallFault | None = None
    cut: CutFault | None = None
    slow: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Every step takes so many times as long."""
    refuse_connections_s: Seconds = 0.0
    """For so long from now on, nothing listens."""
    stale_metrics: bool = False
    """/metrics repeats what it said last."""
    failing_metrics: bool = False
    """/metrics answers 500."""
    flap_health_s: Seconds = 0.0
    """/health is bad for so long, then good for so long, and so on."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request."""

    error_status: int | None = None
    hangs: bool = False
    stalls_after: int | None = None
    cut_after: int | None = None


class FaultSource:
    """Draws each request's fate."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self._random = random.Random(f"{seed}|faults")  # noqa: S311  # reproducible, not a secret
        self.faults = faults

    def draw(self) -> Fate:
        """The fate of the next request; the first fault that hits it decides."""
        faults = self.faults
        if faults.error and self._hits(faults.error.rate):
            return Fate(error_status=faults.error.status)
        if faults.hang and self._hits(faults.hang.rate):
            return Fate(hangs=True)
        if faults.stall and self._hits(faults.stall.rate):
            return Fate(stalls_after=faults.stall.after_tokens)
        if faults.cut and self._hits(faults.cut.rate):
            return Fate(cut_after=faults.cut.after_tokens)
        return Fate()

    def _hits(self, rate: float) -> bool:
        return self._random.random() < rate


class TornConnectionError(Exception):
    """The connection is to be closed in the middle of an answer: the fault that was asked for."""


def decode_faults(text: bytes | str) -> Faults:
    """Faults from JSON.

    Raises:
        ValueError: they are not of this form; the text says where.
    """
    try:
        return msgspec.json.decode(text, type=Faults)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
