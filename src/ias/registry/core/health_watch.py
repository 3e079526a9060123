"""The prober's work while it holds the lease: probe, scrape, listen to gateways, publish, and note what changed.

It goes by the route table in Redis, as gateways do: what they may send to is what is probed. What it finds is published at once
when a health or a circuit changes, and otherwise every few seconds, for the load and so that gateways see that somebody looks.
"""

import asyncio
import heapq
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
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
from ias.registry.core.engine_tokens import TokenReadings
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
_DOUBT_S = 1.0
"""How soon a finding that contradicts what was believed is looked into."""
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


class _Look:
    """One kind of look at one backend, again and again: a probe or a scrape. `at` is when the next is due (`time.monotonic`)."""

    __slots__ = ("at", "go", "interval_s", "is_off", "is_on")

    def __init__(self, go: Callable[[], Coroutine[Any, Any, None]], interval_s: float) -> None:
        self.go = go
        self.interval_s = interval_s
        self.at = 0.0
        self.is_on = False
        """Whether it is going on right now."""
        self.is_off = False
        """Whether there shall be no more."""


@dataclass(frozen=True, slots=True)
class _Watched:
    backend: WatchedBackend
    probe: _Look
    scrape: _Look


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
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, int, _Look]] = []
        """What is to be looked at, soonest first. An entry whose time is no longer its look's is void."""
        self._entries = count()
        self._table_version: int | None = None
        self._table_age = 0
        self._version = 0
        self._has_news = False
        self._outcomes = OutcomeReader(redis)
        self._dice = random.Random()  # noqa: S311 - no secret, only not all at once
        self._looks: set[asyncio.Task[None]] = set()
        self.transitions: deque[BackendTransition] = deque(maxlen=_TRANSITIONS_MAX)
        """What is not yet in PostgreSQL, oldest first; when that is away for very long, the oldest are lost."""
        self.token_readings = TokenReadings()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until told to stop, or until the lease is another's. Raises what the Redis client raises."""
        self._watched, self._table_version = {}, None
        self._due.clear()
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
        for gone in self._watched.keys() - backends.keys():
            watched = self._watched.pop(gone)
            watched.probe.is_off = watched.scrape.is_off = True
            self.token_readings.forget(gone)
        for backend in backends.values():
            self._watch(backend, known)
        self._table_version, self._has_news = table.version, True

    def _watch(self, backend: Backend, known: dict[str, BackendState]) -> None:
        now = time.monotonic()
        watched = self._watched.get(backend.id)
        if watched is None:
            rules, wall_now = self._rules, time.time()
            one = WatchedBackend(backend, rules.health, rules.circuit, known.get(backend.id), wall_now)
            watched = self._watched[backend.id] = _Watched(
                one,
                _Look(lambda: self._probe(one), rules.probe_interval_s),
                _Look(lambda: self._scrape(one), rules.scrape_interval_s),
            )
            spread_s = self._dice.random() * min(1.0, rules.probe_interval_s)
            self._schedule(watched.probe, now + spread_s)
            self._schedule(watched.scrape, now + spread_s)
        elif watched.backend.move(backend):
            self._schedule(watched.probe, now)
            self._schedule(watched.scrape, now)

    # -------------------------------------------------------------- looking

    def _schedule(self, look: _Look, at: float) -> None:
        look.at = at
        heapq.heappush(self._due, (at, next(self._entries), look))

    def _begin_looks(self) -> None:
        """Begin what is due, the longest due first, as many as may go on at once."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now and len(self._looks) < self._rules.at_once_max:
            at, _, look = heapq.heappop(self._due)
            if look.is_off or look.is_on or at != look.at:
                continue
            self._metrics.late_s.set(now - at)
            look.is_on = True
            task = asyncio.create_task(self._go(look))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def _go(self, look: _Look) -> None:
        look.at = due = time.monotonic() + self._jitter(look.interval_s)
        try:
            await look.go()
        finally:
            look.is_on = False
            self._schedule(look, min(look.at, due))

    def _jitter(self, interval_s: float) -> float:
        """The interval, a fifth shorter or longer, so that probes that met once do not meet each time."""
        return interval_s * self._dice.uniform(0.8, 1.2)

    async def _probe(self, watched: WatchedBackend) -> None:
        finding = await self._probes.probe(watched.backend, asks_for_sleep=not watched.says_whether_asleep)
        self._metrics.probes.labels("probe", "well" if finding.is_well else "ill").inc()
        now = time.time()
        self._change(watched, lambda: watched.take_finding(finding, now), now)
        if watched.is_in_doubt and watched.backend.id in self._watched:
            look = self._watched[watched.backend.id].probe
            look.at = min(look.at, time.monotonic() + min(_DOUBT_S, look.interval_s))

    async def _scrape(self, watched: WatchedBackend) -> None:
        if not watched.backend.vllm_extensions:
            return
        scrape = await self._probes.scrape(watched.backend)
        self._metrics.probes.labels("scrape", "well" if scrape else "ill").inc()
        now = time.time()
        if scrape and scrape.tokens:
            self.token_readings.take(watched.backend.id, scrape.tokens, now)
        self._change(watched, lambda: watched.take_load(scrape.load if scrape else None, now), now)

    async def _end_looks(self) -> None:
        looks = list(self._looks)
        for task in looks:
            task.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    # -------------------------------------------------------------- what came of it

    def _heed_outcomes(self, outcomes: dict[str, tuple[int, int]]) -> None:
        now = time.time()
        for backend_id, watched in self._watched.items():
            succeeded, failed = outcomes.get(backend_id, (0, 0))
            self._change(watched.backend, partial(watched.backend.take_outcomes, succeeded, failed, now), now)

    def _change(self, watched: WatchedBackend, take: Callable[[], bool], now: float) -> None:
        """Have something noted; when it changed the backend's state, tell of it."""
        was = watched.health
        if not take():
            return
        self._has_news = True
        state, backend_id = watched.state(now), watched.backend.id
        self._metrics.transitions.labels(state.health, state.circuit).inc()
        log.log(
            logging.DEBUG if was == "unknown" and state.health == "ready" else logging.INFO,
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
        states = {backend_id: watched.backend.state(now) for backend_id, watched in self._watched.items()}
        self._count(states)
        document = BackendStates(version=self._version, written_at=now, states=states)
        return await self._lease.publish(msgspec.json.encode(document))

    def _count(self, states: dict[str, BackendState]) -> None:
        counts = dict.fromkeys(("unknown", "ready", "cold", "unready", "half_open", "open"), 0)
        for state in states.values():
            counts[state.health if state.circuit == "closed" else state.circuit] += 1
        for name, number in counts.items():
            self._metrics.backends.labels(name).set(number)
