"""The worker's routing: a ModelRouter for every model, kept true to the route table, the backends' states and the time.

The rules are in `routing/` and know neither Redis nor connections. Here they meet: what waits for a place is told when it has one,
and what was seen of backends is told to the registry.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol
from zlib import crc32

from ias.contracts import redis_keys
from ias.contracts.backend_states import BackendState
from ias.contracts.routes import Backend, ModelRoute
from ias.gateway.clock import Clock
from ias.gateway.errors import Refusal, queue_full, unavailable
from ias.gateway.given_work import exchange_given_work
from ias.gateway.redis_connection import RedisAwayError, RedisConnection, ignore_reply, pack
from ias.gateway.routing.asks import OUTPUT_WEIGHT, Ask
from ias.gateway.routing.candidates import fresh_states
from ias.gateway.routing.fair_queue import Waiting
from ias.gateway.routing.given_work import exchange_every_s
from ias.gateway.routing.loads import Load, Place
from ias.gateway.routing.model_router import ModelRouter, Verdict
from ias.gateway.settings import GatewaySettings
from ias.gateway.snapshots import Snapshots
from ias.gateway.token_counts import TokenCounts
from ias.gateway.waking import Waking

_SECOND_S: Final = 1.0
_WORKERS_GONE_AFTER_S: Final = 10
_OUTCOMES_KEPT_S: Final = 60
_AWAKE_BELIEVED_S: Final = 30.0


class Waiter(Protocol):
    """Who waits for a place. Told exactly once, unless it leaves."""

    def placed(self, place: Place) -> None:
        """It may send its request."""

    def turned_away(self, refusal: Refusal) -> None:
        """It will have no place."""


class Desk:
    """One model's router, and what a request needs of it at once."""

    __slots__ = ("is_due", "lines", "only", "only_load", "route", "router", "told_at")

    def __init__(self, router: ModelRouter) -> None:
        self.router = router
        self.route = router.route
        self.is_due = False
        """Whether those who wait will be looked at in this turn of the loop."""
        self.told_at = 0.0
        """When other workers were last told what was given here."""
        self.only: Backend | None = None
        """Where everything goes, when there is nothing to choose, to count or to wait for."""
        self.only_load: Load
        self.lines: dict[str, bytes] = {}
        """Header lines that tell a request's backend, at the first attempt."""


class Routers:
    """All models'."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        snapshots: Snapshots,
        clock: Clock,
        waking: Waking,
        cut: Callable[[Backend], None],
    ) -> None:
        self._settings = settings
        self._snapshots = snapshots
        self._clock = clock
        self._waking = waking
        self._cut = cut
        self._redis: RedisConnection | None = None
        self._desks: dict[str, Desk] = {}
        self._worker_id = secrets.token_hex(8)
        self._sharers = 1
        self._next_second = 0.0
        self._awake_until: dict[str, float] = {}
        """Loop time until which a backend that was woken is taken to be awake, whatever an older document says."""

    def attach(self, redis: RedisConnection) -> None:
        """The connection that outcomes are told on."""
        self._redis = redis

    # -------------------------------------------------------------- requests

    def desk(self, route: ModelRoute) -> Desk:
        """The desk of a model."""
        desk = self._desks.get(route.model_id)
        if desk is None or desk.route is not route:
            desk = self._open(route)
        return desk

    def acquire(self, desk: Desk, ask: Ask) -> Place | None:
        """A place at a backend, now; None: it may `wait` for one."""
        router, now = desk.router, self._clock.monotonic
        if now >= router.survey.valid_until:
            self._look(desk)
        if router.queue.length:
            return None
        found = router.ask(ask)
        if not isinstance(found, Place):
            return None
        router.queue.charge(ask.org_id, ask.work, now, ask.weight, found)
        return found

    def wait(self, desk: Desk, ask: Ask, waiter: Waiter) -> Waiting:
        """A place in the queue; the waiter is told when it is this request's turn.

        Raises:
            Refusal: nobody can serve it, or too many wait.
        """
        router = desk.router
        outlook = router.outlook(ask)
        if outlook is Verdict.NONE:
            raise unavailable(f"No server for the model `{router.route.name}` is available.", "no_backend_available")
        if outlook is Verdict.COLD:
            self._wake_one(desk)
        waiting = Waiting(ask, waiter, time.monotonic())
        leaves = router.queue.push(waiting)
        if leaves is waiting:
            raise queue_full()
        if leaves is not None:
            leaves.for_whom.turned_away(queue_full())
        if router.queue.length > 1:
            self._serve_soon(desk)
        return waiting

    def leave(self, desk: Desk, waiting: Waiting) -> None:
        """A request that waits does so no more."""
        desk.router.queue.remove(waiting)

    def release(self, desk: Desk, ask: Ask, place: Place, usage: TokenCounts | None = None) -> None:
        """A request is over at a backend, and has used so much."""
        if place.release():
            router, used = desk.router, 0
            if usage is not None:
                used = usage.input_tokens - usage.cached_input_tokens + OUTPUT_WEIGHT * usage.output_tokens
                router.learn(ask, cached_tokens=usage.cached_input_tokens, output_tokens=usage.output_tokens)
            router.queue.settle(ask.org_id, charged=ask.work, used=used)
            if router.queue.length:
                self._serve_soon(desk)

    def begin(self, desk: Desk, place: Place) -> None:
        """An answer has begun, so its prompt keeps nobody waiting any more."""
        place.begin()
        if desk.router.queue.length:
            self._serve_soon(desk)

    def failed(self, desk: Desk, load: Load) -> None:
        """A backend could not be reached or broke down."""
        load.fail(self._clock.monotonic)
        self._look(desk)

    def _serve_soon(self, desk: Desk) -> None:
        """Not at once: whoever frees a place, or comes, is in the middle of something."""
        if not desk.is_due:
            desk.is_due = True
            asyncio.get_running_loop().call_soon(self._serve_next, desk)

    def _serve_next(self, desk: Desk) -> None:
        desk.is_due = False
        router, now = desk.router, self._clock.monotonic
        for waiting, place in router.next_placed(now):
            ask = waiting.ask
            router.queue.charge(ask.org_id, ask.work, now, ask.weight, place)
            waiting.for_whom.placed(place)

    # -------------------------------------------------------------- what is known of backends

    def refresh(self) -> None:
        """The route table or the backends' states have changed."""
        routes = self._snapshots.routes
        if routes is None:
            return
        by_id = {route.model_id: route for route in routes.models.values()}
        for model_id in self._desks.keys() - by_id.keys():
            self._close(self._desks.pop(model_id))
        for route in by_id.values():
            desk = self._desks.get(route.model_id)
            if desk is None:
                self._open(route)
                continue
            before = desk.router.backends
            self._look(desk, route)
            for backend in route.backends:
                known = before.get(backend.id)
                if not backend.enabled and known is not None and known.enabled:
                    self._cut(known)

    def _open(self, route: ModelRoute) -> Desk:
        desk = self._desks.get(route.model_id)
        if desk is None:
            router = ModelRouter(
                route,
                draw=random.Random(),  # noqa: S311 - spreads load
                queue_length_max=self._settings.gateway_queue_length_max,
            )
            desk = self._desks[route.model_id] = Desk(router)
        self._look(desk, route)
        return desk

    def _close(self, desk: Desk) -> None:
        queue = desk.router.queue
        for waiting in queue.overdue(float("inf")):
            waiting.for_whom.turned_away(unavailable("The model is not served any more.", "no_backend_available"))

    def _look(self, desk: Desk, route: ModelRoute | None = None) -> None:
        """Look at a model's backends anew."""
        router, now, unix_s = desk.router, self._clock.monotonic, time.time()
        desk.route = route = route or desk.route
        router.update(route, self._states(unix_s), now_s=now, unix_s=unix_s, sharers=self._sharers)
        desk.lines = {backend.id: backend_lines(backend.id, 1) for backend in route.backends}
        desk.only = self._find_only(desk)
        if router.queue.length:
            self._serve_soon(desk)

    def _find_only(self, desk: Desk) -> Backend | None:
        """The model's only backend, where it is well and bears what comes."""
        router = desk.router
        if len(router.backends) != 1 or router.queue.length:
            return None
        only = next(iter(router.backends.values()))
        candidates = [c for tier in router.survey.tiers for c in (*tier.stable, *tier.canary)]
        candidates += router.survey.last_resort
        if not candidates or candidates[0].requests_max != float("inf"):
            return None
        desk.only_load = router.loads[only.id]
        return only

    def _states(self, unix_s: float) -> dict[str, BackendState]:
        states = dict(fresh_states(self._snapshots.backend_states, unix_s))
        for name, until in tuple(self._awake_until.items()):
            if until < self._clock.monotonic:
                del self._awake_until[name]
            elif name in states and states[name].health == "cold":
                states[name] = BackendState(health="ready", since=int(unix_s))
        return states

    # -------------------------------------------------------------- cold backends

    def _wake_one(self, desk: Desk) -> None:
        """One is enough for a start, and several may share an accelerator that has room for one."""
        cold = sorted(desk.router.survey.cold, key=lambda backend: (self._waking.failures(backend), backend.tier))
        if cold:
            self._waking.wake(cold[0], partial(self._woken, desk, cold[0]))

    def _woken(self, desk: Desk, backend: Backend) -> None:
        self._awake_until[backend.id] = self._clock.monotonic + _AWAKE_BELIEVED_S
        self._look(desk)

    # -------------------------------------------------------------- time

    def tick(self, now: float) -> None:
        """Told the time several times a second."""
        for desk in self._desks.values():
            router = desk.router
            if now >= router.survey.valid_until:
                self._look(desk)
            if router.queue.length:
                self._turn_away_overdue(desk, now)
                if not router.survey.tiers:
                    self._wake_one(desk)
                self._serve_soon(desk)  # others' requests may have left places
            if desk.only is None:
                router.look_at_shares(now)
                if router.queue.tells and now >= desk.told_at + exchange_every_s(router.queue.length):
                    self._exchange(desk, now)
        if now >= self._next_second:
            self._next_second = now + _SECOND_S
            self._tell()

    def _turn_away_overdue(self, desk: Desk, now: float) -> None:
        timeout_s = desk.route.policy.queue_timeout_s
        if timeout_s is None:
            timeout_s = self._settings.gateway_queue_timeout_s
        for waiting in desk.router.queue.overdue(now - timeout_s):
            if desk.router.survey.tiers:
                refusal = unavailable("All servers of the model are busy.", "overloaded")
            else:
                refusal = unavailable("The model's servers are not awake yet.", "model_waking")
            waiting.for_whom.turned_away(refusal)

    def _tell(self) -> None:
        """Tell the registry what was seen of backends; tell other workers that this one is here, and learn how many there are."""
        redis = self._redis
        if redis is None or not redis.is_ready:
            return
        now = int(time.time())
        commands = [
            pack("ZADD", redis_keys.GATEWAY_WORKERS, now, self._worker_id),
            pack("ZREMRANGEBYSCORE", redis_keys.GATEWAY_WORKERS, 0, now - _WORKERS_GONE_AFTER_S),
            *self._outcomes(now // 10),
        ]
        try:
            for command in commands:
                redis.call(command, ignore_reply)
            redis.call(pack("ZCARD", redis_keys.GATEWAY_WORKERS), self._take_sharers)
        except RedisAwayError:
            pass  # the next second tells

    def _exchange(self, desk: Desk, now: float) -> None:
        """Tell other workers what was given of a model here, and hear what was elsewhere."""
        redis = self._redis
        if redis is None or not redis.is_ready:
            return
        desk.told_at = now
        with suppress(RedisAwayError):  # the next time tells
            exchange_given_work(redis, desk.router)

    def _outcomes(self, ten_seconds: int) -> list[bytes]:
        key = redis_keys.backend_outcomes(ten_seconds)
        commands = []
        for desk in self._desks.values():
            for name, load in desk.router.loads.items():
                if load.succeeded:
                    commands.append(pack("HINCRBY", key, f"{name}:succeeded", load.succeeded))
                if load.failed:
                    commands.append(pack("HINCRBY", key, f"{name}:failed", load.failed))
                load.succeeded = load.failed = 0
        if commands:
            commands.append(pack("EXPIRE", key, _OUTCOMES_KEPT_S))
        return commands

    def _take_sharers(self, given: None, reply: Any) -> None:
        del given
        if isinstance(reply, int) and reply > 0 and reply != self._sharers:
            self._sharers = reply
            for desk in self._desks.values():
                self._look(desk)

    async def close(self) -> None:
        """The worker goes down: others need not leave room for it."""
        await self._waking.close()
        if self._redis is not None and self._redis.is_ready:
            self._redis.call(pack("ZREM", redis_keys.GATEWAY_WORKERS, self._worker_id), ignore_reply)

    @property
    def wakes(self) -> int:
        """Calls to sleeping backends."""
        return self._waking.calls

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return sum(desk.router.queue.length for desk in self._desks.values())


def backend_lines(backend_id: str, attempts: int) -> bytes:
    """The header lines that say who serves a request, and how many were asked for it."""
    return b"x-ias-backend: %b\r\nx-ias-attempts: %d\r\n" % (backend_id.encode(), attempts)


def hash_session(session: str | bytes) -> int:
    """The same in every worker."""
    return crc32(session if isinstance(session, bytes) else session.encode())
