"""The gateway's own routing as a gateway of the simulator: nothing here decides anything."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ias.contracts.backend_states import BackendState
from ias.contracts.routes import Backend, ModelRoute, RoutePolicy, Strategy
from ias.contracts.spending import QUEUE_WEIGHT_USUAL
from ias.engine.simulation.dispatch import Decision, Outcome, Refuse, ReplicaView, Request, Send
from ias.gateway.routing.asks import OUTPUT_WEIGHT, Ask
from ias.gateway.routing.fair_queue import Waiting
from ias.gateway.routing.given_work import (
    ORGS_TOLD_MAX,
    Kept,
    add_windows,
    exchange_every_s,
    join_kept,
    window_of,
    windows_at,
)
from ias.gateway.routing.loads import Place
from ias.gateway.routing.model_router import ModelRouter, Verdict
from ias.gateway.routing.prefixes import CUTS

ATTEMPTS_MAX = 3
QUEUE_TIMEOUT_S = 30.0
LOOK_S = 0.1
"""The gateway's own clock ticks so often."""


class Told:
    """What gateways tell one another of what orgs were given and what is kept free: Redis' part, in windows as there."""

    def __init__(self) -> None:
        self._windows: dict[int, Counter[str]] = {}
        self._kept: dict[int, set[int]] = {}

    def add(self, given: Mapping[str, int], kept: int, now_s: float) -> None:
        """One gateway tells."""
        window = window_of(now_s)
        self._windows.setdefault(window, Counter()).update(given)
        self._kept.setdefault(window, set()).add(kept)

    def read(self, now_s: float) -> tuple[dict[str, float], Kept]:
        """All that was told lately."""
        given = add_windows({window: self._windows.get(window, {}) for window in windows_at(now_s)}, now_s)
        return given, join_kept(self._kept, now_s)


class GatewayDispatcher:
    """One gateway."""

    def __init__(
        self,
        number: int,
        gateways: int = 1,
        *,
        strategy: Strategy = "prefix",
        weights: Mapping[str, int] | None = None,
        told: Told | None = None,
    ) -> None:
        self._policy = RoutePolicy(strategy=strategy, attempts_max=ATTEMPTS_MAX)
        self._router: ModelRouter | None = None
        self._number = number
        self._gateways = gateways
        self._weights = weights or {}
        self._told = told or Told()
        self._told_at = exchange_every_s(0) * number / gateways
        self._looked_at = 0.0
        self._asks: dict[int, Ask] = {}
        self._places: dict[int, Place] = {}

    def _prepare(self, replicas: Sequence[ReplicaView], now_s: float) -> ModelRouter:
        backends = tuple(
            Backend(id=str(r.index), url="", upstream_model="m", weight=max(1, round(r.weight))) for r in replicas
        )
        states = {
            str(r.index): BackendState(
                health="ready" if r.alive else "unready",
                since=0,
                waiting=r.scrape.waiting,
                kv_cache_usage=r.scrape.kv_cache_usage,
            )
            for r in replicas
        }
        route = ModelRoute(
            model_id="m", name="m", created=0, context_length=1 << 20, policy=self._policy, backends=backends
        )
        if self._router is None:
            draw = random.Random(f"{self._number}|draw")
            self._router = ModelRouter(route, draw=draw)
        self._router.update(route, states, now_s=now_s, unix_s=now_s, sharers=self._gateways)
        return self._router

    def arrive(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:
        """See Dispatcher."""
        router = self._router or self._prepare(replicas, now_s)
        if now_s >= self._looked_at + LOOK_S:
            self._looked_at = now_s
            router.look_at_shares(now_s)
        if self._gateways > 1 and now_s >= self._told_at + exchange_every_s(router.queue.length):
            self._told_at = now_s
            self._told.add(router.queue.tell(ORGS_TOLD_MAX), router.kept_needed, now_s)
            given, kept = self._told.read(now_s)
            router.queue.hear(given, now_s)
            router.hear_kept(kept, now_s)
        names = request.prompt.names
        ask = Ask(
            request.tenant,
            tokens=request.prompt.tokens,
            output_tokens=min(request.output_tokens_max, int(router.output_tokens)),
            weight=self._weights.get(request.tenant, QUEUE_WEIGHT_USUAL),
            names=[names[cut // 16 - 1] & 0xFFFFFFFF for cut in CUTS if cut // 16 <= len(names)],
        )
        self._asks[request.number] = ask
        return self._enter(router, ask, request, now_s)

    def _enter(self, router: ModelRouter, ask: Ask, request: Request, now_s: float) -> Iterator[Decision]:
        if router.queue.length == 0:
            found = router.ask(ask)
            if isinstance(found, Place):
                yield self._send(router, ask, request, found, now_s)
                return
            if found is not Verdict.BUSY:
                yield self._refuse(request)
                return
        leaves = router.queue.push(Waiting(ask, request, now_s))
        if leaves is not None:
            yield self._refuse(leaves.for_whom)
        yield from self._drain(router, now_s)

    def _drain(self, router: ModelRouter, now_s: float) -> Iterator[Decision]:
        for waiting, place in router.next_placed(now_s):
            yield self._send(router, waiting.ask, waiting.for_whom, place, now_s)

    def _send(self, router: ModelRouter, ask: Ask, request: Request, place: Place, now_s: float) -> Decision:
        self._places[request.number] = place
        router.queue.charge(ask.org_id, ask.work, now_s, ask.weight, place)
        return Send(request, int(place.load.backend_id))

    def _refuse(self, request: Request) -> Decision:
        self._asks.pop(request.number, None)
        return Refuse(request)

    def begin(self, request: Request, replica: int, now_s: float) -> Iterable[Decision]:
        """See Dispatcher."""
        del replica
        self._places[request.number].begin()
        return self._drain(self._router, now_s) if self._router is not None else ()

    def end(
        self, request: Request, replica: int, outcome: Outcome, replicas: Sequence[ReplicaView], now_s: float
    ) -> Iterable[Decision]:
        """See Dispatcher."""
        router = self._router
        if router is None:
            return
        ask, place = self._asks[request.number], self._places.pop(request.number)
        place.release()
        used = 0
        if outcome.status == "ok":
            router.learn(ask, cached_tokens=outcome.cached_tokens, output_tokens=outcome.output_tokens)
            place.load.succeed()
            used = request.prompt.tokens - outcome.cached_tokens + OUTPUT_WEIGHT * outcome.output_tokens
        router.queue.settle(ask.org_id, charged=ask.work, used=used)
        if outcome.status == "ok" or outcome.had_first_token:
            del self._asks[request.number]
        else:
            place.load.fail(now_s)
            self._prepare(replicas, now_s)
            ask.tried = (*ask.tried, str(replica))
            if len(ask.tried) >= ATTEMPTS_MAX:
                yield self._refuse(request)
            else:
                yield from self._enter(router, ask, request, now_s)
        yield from self._drain(router, now_s)

    def refresh(self, replicas: Sequence[ReplicaView], now_s: float) -> Iterable[Decision]:
        """See Dispatcher."""
        router = self._prepare(replicas, now_s)
        for waiting in router.queue.overdue(now_s - QUEUE_TIMEOUT_S):
            yield self._refuse(waiting.for_whom)
        yield from self._drain(router, now_s)
