"""What the registry's prober knows of every backend, for the gateways: health, circuit, load.

One JSON document under `redis_keys.BACKEND_STATES`, written whole when something has changed, with a version that only grows. A
gateway goes by its own experience too (connections refused, answers failed), and by that alone when the document is missing or
older than `STALE_AFTER_S`: health that nobody checks is no reason to refuse.
"""

from typing import Literal

import msgspec

STALE_AFTER_S = 30

Health = Literal["unknown", "ready", "cold", "unready"]
"""`cold` sleeps and wakes when asked; `unready` does not answer, or does not have the model."""

Circuit = Literal["closed", "half_open", "open"]
"""`open` takes nothing, `half_open` one request at a time of each worker, until it is seen to work."""


class BackendState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend."""

    health: Health
    circuit: Circuit = "closed"
    reason: str = ""
    """Why it is in this state, for people."""
    since: int
    """Unix seconds: when the health or the circuit last changed."""
    ramps_until: int | None = None
    """Unix seconds: recovered at `since`; from then until this its weight grows from a tenth to the whole."""
    running: int | None = None
    """Requests it computes, by its own metrics; None here and below: not scraped."""
    waiting: int | None = None
    kv_cache_usage: float | None = None
    """0 to 1."""
    scraped_at: float | None = None
    """Unix seconds."""
    adapters: tuple[str, ...] = ()
    """The LoRA adapters that its server lists; each is asked for as a model of its own."""


class BackendStates(msgspec.Struct, frozen=True, kw_only=True):
    """All of them by backend id."""

    version: int
    """Milliseconds of `written_at`, so that a new prober always continues above the last."""
    written_at: float
    """Unix seconds."""
    states: dict[str, BackendState]
