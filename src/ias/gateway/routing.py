"""The choice among a model's backends."""

import random
from collections.abc import Collection
from typing import Protocol

from ias.contracts.routes import Backend, ModelRoute
from ias.gateway.upstream import Upstreams


class Router(Protocol):
    """Chooses among a model's backends. May know as much about the request as the exchange does."""

    def pick(self, route: ModelRoute, *, tried: Collection[str]) -> Backend | None:
        """A backend whose id is not among those tried; None when there is none."""


class LeastLoaded:
    """The backend with the fewest requests of this worker in flight for its weight.

    Draining and disabled backends get nothing. Backends that failed a moment ago are asked only when all others are exhausted: an
    answer that may come is better than none.
    """

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def pick(self, route: ModelRoute, *, tried: Collection[str]) -> Backend | None:
        """See Router."""
        backends = route.backends
        if len(backends) == 1 and not tried:
            only = backends[0]
            return None if only.draining or only.weight <= 0 or not only.enabled else only
        candidates = [b for b in backends if b.enabled and not b.draining and b.weight > 0 and b.id not in tried]
        return min(candidates, key=self._burden) if candidates else None

    def _burden(self, backend: Backend) -> tuple[float, float, float]:
        pool = self._upstreams.pool(backend.url)
        away_s = max(0.0, pool.ejected_until - pool.loop.time())
        return (away_s, (pool.in_flight + 1) / backend.weight, random.random())  # noqa: S311 - breaks ties
