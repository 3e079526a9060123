"""The prober's work while it holds the lease: probe, scrape, listen to gateways, publish, and note what changed.

It goes by the route table in Redis, as gateways do: what they may send to is what is probed. What it finds is published at once
when a health or a circuit changes, and otherwise every few seconds, for the load and so that gateways see that somebody looks.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.backend_states import BackendState, BackendStates
from ias.contracts.ids import uuid7
from ias.contracts.routes import Backend, RouteTable
from ias.registry.core.circuits import CircuitRules
from ias.registry.core.outcomes import OutcomeReader
from ias.registry.core.prober_lease import ProberLease
from ias.registry.core.probes import Probes
from ias.registry.core.route_table import read_version
from ias.registry.core.watched_backends import HealthRules, WatchedBackend
from ias.registry.store.backend_transitions import BackendTransition

log = structlog.get_logger("ias.registry")

_TICK_S = 0.1
_REFRESH_S = 1.0
_PUBLISH_S = 2.0
_TABLE_AGE_MAX = 15
"""After so many refreshes the table is read although its version is the same: the egress policy may have left backends out."""
_TRANSITIONS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRules:
    """How often, how long, how many."""

    probe_interval_s: float
    scrape_interval_s: float
    at_once_max: int
    health: HealthRules = field(default_factory=HealthRules)
    circuit: CircuitRules = field(default_factory=CircuitRules)


class WatchMetrics:
    """What is counted of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.is_prober = Gauge("ias_registry_is_prober", "1 in the process that probes.", registry=registry)
        self.probes = Counter("ias_registry_probes", "Probes and scrapes.", ("kind", "outcome"), registry=registry)
        self.transitions = Counter(
            "ias_registry_backend_transitions",
            "Changes of health or circuit.",
            ("health", "circuit"),
            registry=registry,
        )
        self.backends = Gauge(
            "ias_registry_backends",
            "Backends by their state, in the process that probes.",
            ("state",),
            registry=registry,
        )
        self.late_s = Gauge(
            "ias_registry_probe_lateness_seconds", "How late the last probe began, by its schedule.", registry=registry
        )


@dataclass(slots=True)
class _Schedule:
    """A backend under watch, and when to look at it next (`time.monotonic`)."""

    watched: WatchedBackend
    probe_at: float
    scrape_at: float
    is_probed: bool = False
    is_scraped: bool = False


class HealthWatch:
    """Knows the state of every backend while it runs; another process takes over what it has published."""

    def __init__(
        self, redis: "Redis", lease: ProberLease, probes: Probes, rules: WatchRules, metrics: WatchMetrics
    ) -> None:
        self._redis = redis
        self._lease = lease
        self._probes = probes
        self._rules = rules
        self._metrics = metrics
        self._schedules: dict[str, _Schedule] = {}
        self._table_version: int | None = None
        self._table_age = 0
        self._version = 0
        self._has_news = False
        self._outcomes = OutcomeReader(redis)
        self._looks: set[asyncio.Task[None]] = set()
        self.transitions: deque[BackendTransition] = deque(maxlen=_TRANSITIONS_MAX)
        """What is not yet in PostgreSQL, oldest first; when that is away for very long, the oldest are lost."""

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until told to stop, or until the lease is another's. Raises what the Redis client raises."""
        self._schedules, self._table_version = {}, None
        self._outcomes = OutcomeReader(self._redis)
        known = await self._take_over()
        self._metrics.is_prober.set(1)
        refresh_at = publish_at = 0.0
        try:
            while not stop.is_set():
                now = time.monotonic()
                if now >= refresh_at:
                    if not await self._lease.renew():
                        return
                    await self._refresh_backends(known)
                    self._heed_outcomes(await self._outcomes.read_new())
                    refresh_at = now + _REFRESH_S
                self._begin_looks()
                if self._has_news or now >= publish_at:
                    if not await self._publish():
                        return
                    publish_at = now + _PUBLISH_S
                await asyncio.sleep(_TICK_S)
        finally:
            self._metrics.is_prober.set(0)
            self._metrics.backends.clear()
            await self._end_looks()

    # -------------------------------------------------------------- what there is to watch

    async def _take_over(self) -> dict[str, BackendState]:
        """What the prober before this one has published."""
        document = cast("bytes | None", await self._redis.get(redis_keys.BACKEND_STATES))
        try:
            states = msgspec.json.decode(document or b"", type=BackendStates)
        except msgspec.MsgspecError:
            return {}
        self._version = states.version
        return states.states

    async def _refresh_backends(self, known: dict[str, BackendState]) -> None:
        """Follow the route table."""
        version = await read_version(self._redis)
        self._table_age += 1
        if version is None or (version == self._table_version and self._table_age < _TABLE_AGE_MAX):
            return
        self._table_age = 0
        try:
            table = msgspec.json.decode(await self._redis.get(redis_keys.ROUTES) or b"", type=RouteTable)
        except msgspec.MsgspecError:
            return  # the healing loop replaces it
        backends = {backend.id: backend for route in table.models.values() for backend in route.backends}
        for gone in self._schedules.keys() - backends.keys():
            del self._schedules[gone]
        for backend in backends.values():
            self._watch(backend, known)
        self._table_version, self._has_news = table.version, True

    def _watch(self, backend: Backend, known: dict[str, BackendState]) -> None:
        schedule = self._schedules.get(backend.id)
        now = time.monotonic()
        if schedule is None:
            watched = WatchedBackend(
                backend, self._rules.health, self._rules.circuit, known.get(backend.id), time.time()
            )
            spread = random.random() * min(1.0, self._rules.probe_interval_s)  # noqa: S311 - no secret, only not all at once
            self._schedules[backend.id] = _Schedule(watched, now + spread, now + spread)
            return
        if schedule.watched.move(backend):
            schedule.probe_at = schedule.scrape_at = now

    # -------------------------------------------------------------- looking

    def _begin_looks(self) -> None:
        """Begin the probes and scrapes that are due, as many as may go on at once; the others wait for the next tick."""
        now = time.monotonic()
        rules = self._rules
        for schedule in self._schedules.values():
            if len(self._looks) >= rules.at_once_max:
                return
            if now >= schedule.probe_at and not schedule.is_probed:
                self._metrics.late_s.set(now - schedule.probe_at)
                schedule.is_probed = True
                schedule.probe_at = now + _jitter(rules.probe_interval_s)
                self._begin(self._probe(schedule))
            if now >= schedule.scrape_at and not schedule.is_scraped and schedule.watched.backend.vllm_extensions:
                schedule.is_scraped = True
                schedule.scrape_at = now + _jitter(rules.scrape_interval_s)
                self._begin(self._scrape(schedule))

    def _begin(self, look: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(look)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _probe(self, schedule: _Schedule) -> None:
        watched = schedule.watched
        try:
            finding = await self._probes.probe(watched.backend, asks_for_sleep=not watched.says_whether_asleep)
        finally:
            schedule.is_probed = False
        self._metrics.probes.labels("probe", "well" if finding.is_well else "ill").inc()
        now = time.time()
        self._change(watched, lambda: watched.take_finding(finding, now), now)
        if watched.is_in_doubt:
            schedule.probe_at = min(schedule.probe_at, time.monotonic() + min(1.0, self._rules.probe_interval_s))

    async def _scrape(self, schedule: _Schedule) -> None:
        watched = schedule.watched
        try:
            load = await self._probes.scrape(watched.backend)
        finally:
            schedule.is_scraped = False
        self._metrics.probes.labels("scrape", "well" if load else "ill").inc()
        now = time.time()
        self._change(watched, lambda: watched.take_load(load, now), now)

    async def _end_looks(self) -> None:
        looks = list(self._looks)
        for task in looks:
            task.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    # -------------------------------------------------------------- what came of it

    def _heed_outcomes(self, outcomes: dict[str, tuple[int, int]]) -> None:
        now = time.time()
        for backend_id, schedule in self._schedules.items():
            succeeded, failed = outcomes.get(backend_id, (0, 0))
            watched = schedule.watched
            self._change(watched, lambda w=watched, s=succeeded, f=failed: w.take_outcomes(s, f, now), now)  # type: ignore[misc]

    def _change(self, watched: WatchedBackend, take: Callable[[], bool], now: float) -> None:
        """Have something noted; when it changed the backend's state, tell of it."""
        if not take():
            return
        self._has_news = True
        state, backend_id = watched.state(now), watched.backend.id
        self._metrics.transitions.labels(state.health, state.circuit).inc()
        log.info(
            "a backend's state changed",
            backend_id=backend_id,
            health=state.health,
            circuit=state.circuit,
            reason=state.reason,
        )
        self.transitions.append(
            BackendTransition(
                id=uuid7(),
                backend_id=UUID(backend_id),
                at=datetime.fromtimestamp(now, UTC),
                health=state.health,
                circuit=state.circuit,
                reason=state.reason,
            )
        )

    async def _publish(self) -> bool:
        now = time.time()
        self._has_news = False
        self._version = max(int(now * 1000), self._version + 1)
        states = {backend_id: schedule.watched.state(now) for backend_id, schedule in self._schedules.items()}
        self._count(states)
        document = BackendStates(version=self._version, written_at=now, states=states)
        return await self._lease.publish(msgspec.json.encode(document))

    def _count(self, states: dict[str, BackendState]) -> None:
        counts = dict.fromkeys(("unknown", "ready", "cold", "unready", "half_open", "open"), 0)
        for state in states.values():
            counts[state.health if state.circuit == "closed" else state.circuit] += 1
        for name, count in counts.items():
            self._metrics.backends.labels(name).set(count)


def _jitter(interval_s: float) -> float:
    """The interval, a fifth shorter or longer, so that probes that met once do not meet each time."""
    return interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
