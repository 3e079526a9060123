"""What is known of one backend, from probes, scrapes and gateways' outcomes together. No I/O, no clock."""

from dataclasses import dataclass

from ias.contracts.backend_states import BackendState, Health
from ias.contracts.routes import Backend
from ias.registry.core.circuits import CircuitBreaker, CircuitRules
from ias.registry.core.engine_load import EngineLoad

_SCRAPES_FAILED_MAX = 2
"""After so many in a row the last load is forgotten: it says nothing of now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """When a backend is believed to be well or ill."""

    failures_min: int = 2
    """Probes in a row that must fail before a backend that was ready is unready: one may be bad luck."""
    successes_min: int = 2
    """Probes in a row that must succeed before one that was unready is ready again."""
    ramp_s: float = 30.0
    """How long a backend that recovered gets less than its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one probe found."""

    is_well: bool
    reason: str
    """What was found, for people."""
    is_asleep: bool | None = None
    """None: it was not asked, or does not say."""
    adapters: tuple[str, ...] = ()


_PLACE = ("url", "upstream_model", "sealed_credential", "vllm_extensions")


class WatchedBackend:
    """One backend under watch. Times are Unix seconds."""

    def __init__(
        self, backend: Backend, rules: HealthRules, circuit_rules: CircuitRules, known: BackendState | None, now: float
    ) -> None:
        self.backend = backend
        self._rules = rules
        self.health: Health = known.health if known else "unknown"
        self.circuit = CircuitBreaker(circuit_rules, state=known.circuit if known else "closed", now=now)
        self._health_reason = known.reason if known else "it was not probed yet"
        self._since = known.since if known else int(now)
        self._ramps_until = known.ramps_until if known else None
        self._adapters = known.adapters if known else ()
        self._failures = 0
        self._successes = 0
        self._is_well = self.health in ("ready", "cold")
        self._is_asleep = self.health == "cold"
        self._load: EngineLoad | None = None
        self._scraped_at: float | None = None
        self._scrapes_failed = 0

    def move(self, backend: Backend) -> bool:
        """Take over what the route table says now; whether it is another server, or another model there."""
        before, self.backend = self.backend, backend
        if all(getattr(before, name) == getattr(backend, name) for name in _PLACE):
            return False
        self._load = None
        return True

    def take_finding(self, finding: Finding, now: float) -> bool:
        """Take note of a probe; whether the health changed."""
        self._successes, self._failures = (self._successes + 1, 0) if finding.is_well else (0, self._failures + 1)
        if finding.is_asleep is not None:
            self._is_asleep = finding.is_asleep
        if self.health == "unknown":
            self._is_well = finding.is_well
        elif self._successes >= self._rules.successes_min:
            self._is_well = True
        elif self._failures >= self._rules.failures_min:
            self._is_well = False
        if finding.is_well == self._is_well:
            self._health_reason = finding.reason
            self._adapters = finding.adapters
        return self._settle_health(now, was_probed=True)

    def take_load(self, load: EngineLoad | None, now: float) -> bool:
        """Take note of a scrape, None of one that failed; whether the health changed."""
        if load is None:
            self._scrapes_failed += 1
            if self._scrapes_failed >= _SCRAPES_FAILED_MAX:
                self._load = None
            return False
        self._load, self._scraped_at, self._scrapes_failed = load, now, 0
        if load.is_asleep is not None:
            self._is_asleep = load.is_asleep
        return self._settle_health(now, was_probed=False)

    def take_outcomes(self, succeeded: int, failed: int, now: float) -> bool:
        """Take note of what gateways saw since the last time (also: nothing); whether the circuit changed."""
        self.circuit.observe(succeeded, failed, now)
        has_changed = self.circuit.advance(now, is_ready=self.health == "ready")
        if has_changed:
            self._since = int(now)
            self._ramps_until = int(now + self._rules.ramp_s) if self.circuit.state == "closed" else None
        return has_changed

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last probes contradict the health: to be probed again soon."""
        return bool(self._failures) if self._is_well else bool(self._successes)

    @property
    def says_whether_asleep(self) -> bool:
        """Whether its metrics do, so that it need not be asked."""
        return self._load is not None and self._load.is_asleep is not None

    def state(self, now: float) -> BackendState:
        """All of it, as gateways and the API are told."""
        load = self._load
        return BackendState(
            health=self.health,
            circuit=self.circuit.state,
            reason=self.reason,
            since=self._since,
            ramps_until=self._ramps_until if self._ramps_until and self._ramps_until > now else None,
            running=load.running if load else None,
            waiting=load.waiting if load else None,
            kv_cache_usage=load.kv_cache_usage if load else None,
            scraped_at=self._scraped_at if load else None,
            adapters=self._adapters,
        )

    @property
    def reason(self) -> str:
        """Why it is in its state."""
        if self.health == "cold":
            return "it sleeps"
        return self.circuit.reason if self.health == "ready" and self.circuit.reason else self._health_reason

    def _settle_health(self, now: float, *, was_probed: bool) -> bool:
        if self.health == "unknown" and not was_probed:
            return False
        health: Health = "unready" if not self._is_well else "cold" if self._is_asleep else "ready"
        if health == self.health:
            return False
        if health == "ready" and self.health == "unready":
            self._ramps_until = int(now + self._rules.ramp_s)
        self.health = health
        self._since = int(now)
        return True
