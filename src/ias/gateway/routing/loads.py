"""What one worker has in flight at each backend, and how the backend has been doing by its own experience.

A Place is held from the choice of a backend until its request is over, however it ends. Releasing it twice is harmless, so whoever
may be the last one to know calls `release`.
"""

from typing import Final

from ias.gateway.routing.prefixes import Cache

REQUEST_TOKENS: Final = 100
"""What another answer in the making costs a new one, in tokens of prompt; found by measurement, as in `strategies`."""
_EJECTED_FIRST_S: Final = 1.0
_EJECTED_LAST_S: Final = 30.0


class Load:
    """One backend's."""

    __slots__ = (
        "backend_id",
        "burden",
        "cache",
        "ejected_until",
        "failed",
        "failures",
        "pending_tokens",
        "requests",
        "succeeded",
        "tokens",
    )

    def __init__(self, backend_id: str) -> None:
        self.backend_id = backend_id
        self.requests = 0
        self.tokens = 0
        """Of all requests in flight: what is expected of prompts and answers."""
        self.burden = 0
        """What a new prompt would have to wait for, in tokens of prompt."""
        self.pending_tokens = 0
        """Of prompts whose answers have not begun, less what is probably cached: work that a new prompt has to wait for."""
        self.failures = 0
        """In a row."""
        self.ejected_until = 0.0
        """Until then it is asked only when all others are exhausted."""
        self.succeeded = 0
        """Attempts since these were last told to the registry."""
        self.failed = 0
        self.cache = Cache()

    def succeed(self) -> None:
        """It has answered."""
        self.succeeded += 1
        if self.failures:
            self.failures = 0
            self.ejected_until = 0.0

    def fail(self, now_s: float) -> None:
        """It could not be reached or broke down: prefer others for a while, longer each time in a row."""
        self.failed += 1
        self.failures += 1
        self.ejected_until = now_s + min(_EJECTED_LAST_S, _EJECTED_FIRST_S * 2.0 ** min(self.failures - 1, 10))

    def forget_cache(self) -> None:
        """It was away: whatever it had cached is gone."""
        self.cache = Cache()


class Place:
    """A request's place at a backend."""

    __slots__ = ("_is_held", "_tokens", "has_begun", "load", "pending")

    def __init__(self, load: Load, tokens: int, pending: int) -> None:
        self.load = load
        self._tokens = tokens
        self.pending = pending
        """Tokens of its prompt, less what is probably cached, until its answer begins."""
        self._is_held = True
        self.has_begun = False
        """Whether its answer has, or it is over."""
        load.requests += 1
        load.tokens += tokens
        load.pending_tokens += pending
        load.burden += pending + REQUEST_TOKENS

    def begin(self) -> None:
        """The answer has begun: its prompt is computed."""
        self.load.pending_tokens -= self.pending
        self.load.burden -= self.pending
        self.pending = 0
        self.has_begun = True

    def release(self) -> bool:
        """The request is over, in whatever way; whether it was not before."""
        if not self._is_held:
            return False
        self._is_held = False
        load = self.load
        self.begin()
        load.requests -= 1
        load.tokens -= self._tokens
        load.burden -= REQUEST_TOKENS
        return True
