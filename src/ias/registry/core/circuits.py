"""A backend's circuit breaker: what became of the requests that gateways sent it decides whether it gets more. No I/O, no clock.

Closed until enough of the last requests failed; then open, each time twice as long as the time before; then half open, when each
worker of each gateway lets one request at a time through: one more failure opens it again, a few successes close it.
"""

from collections import deque
from dataclasses import dataclass

from ias.contracts.backend_states import Circuit


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """When a circuit opens and closes."""

    window_s: float = 20.0
    """How far back outcomes count."""
    failures_min: int = 5
    failed_share_min: float = 0.5
    """It opens when at least so many of the requests in the window failed, and at least this share of them.

    Or when so many failed one after the other, however long that took: gateways send less and less to what fails.
    """
    open_s: float = 5.0
    """How long it is open the first time."""
    open_max_s: float = 300.0
    successes_min: int = 3
    """How many requests must succeed, with none failing, to close it."""
    untried_s: float = 60.0
    """A half-open circuit that nobody tried for so long closes, when the probes find nothing wrong."""
    forget_s: float = 120.0
    """After so long without opening again the next time is a first time."""


class CircuitBreaker:
    """One backend's circuit."""

    def __init__(self, rules: CircuitRules, *, state: Circuit = "closed", now: float = 0.0) -> None:
        self.state: Circuit = state
        self.reason = "found so by the prober before this one" if state != "closed" else ""
        self._rules = rules
        self._openings = 1 if state != "closed" else 0
        self._until = now + rules.open_s
        """When an open circuit is tried, or a half-open one closes untried, or the openings of a closed one are forgotten."""
        self._outcomes: deque[tuple[float, int, int]] = deque()
        self._failed_in_a_row = 0

    def observe(self, succeeded: int, failed: int, now: float) -> None:
        """Take note of requests that gateways have seen the end of."""
        if self.state != "open" and (succeeded or failed):
            self._outcomes.append((now, succeeded, failed))
            self._failed_in_a_row = 0 if succeeded else self._failed_in_a_row + failed

    def advance(self, now: float, *, is_ready: bool) -> bool:
        """Go to the state that is right now; whether it is another. `is_ready`: the probes find nothing wrong."""
        before = self.state
        while self._outcomes and self._outcomes[0][0] < now - self._rules.window_s:
            self._outcomes.popleft()
        succeeded = sum(count for _, count, _ in self._outcomes)
        failed = sum(count for _, _, count in self._outcomes)
        if self.state == "open":
            if now >= self._until:
                self._half_open(now)
        elif self.state == "half_open":
            self._judge_trial(succeeded, failed, now, is_ready=is_ready)
        elif self._failed_in_a_row >= self._rules.failures_min:
            self._open(f"the last {self._failed_in_a_row} requests failed", now)
        elif self._is_too_much(succeeded, failed):
            self._open(f"{failed} of {succeeded + failed} requests failed within {self._rules.window_s:g} s", now)
        elif self._openings and now >= self._until:
            self._openings = 0
        return self.state != before

    def _is_too_much(self, succeeded: int, failed: int) -> bool:
        rules = self._rules
        return failed >= rules.failures_min and failed >= rules.failed_share_min * (succeeded + failed)

    def _judge_trial(self, succeeded: int, failed: int, now: float, *, is_ready: bool) -> None:
        if failed:
            self._open("it was tried again and failed", now)
        elif succeeded >= self._rules.successes_min or (now >= self._until and is_ready):
            self._close(now)

    def _open(self, reason: str, now: float) -> None:
        length_s = min(self._rules.open_s * 2**self._openings, self._rules.open_max_s)
        self.state = "open"
        self.reason = f"{reason}; it is tried again after {length_s:g} s"
        self._openings = min(self._openings + 1, 32)
        self._until = now + length_s
        self._forget_outcomes()

    def _half_open(self, now: float) -> None:
        self.state = "half_open"
        self.reason = f"it is tried again; {self._rules.successes_min} requests that succeed close the circuit"
        self._until = now + self._rules.untried_s

    def _close(self, now: float) -> None:
        self.state = "closed"
        self.reason = ""
        self._until = now + self._rules.forget_s
        self._forget_outcomes()

    def _forget_outcomes(self) -> None:
        self._outcomes.clear()
        self._failed_in_a_row = 0
