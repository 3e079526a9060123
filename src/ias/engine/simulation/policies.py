"""Ways of choosing a replica that others use, to compare with: baselines, and a prototype of prefix affinity."""

import random
from collections import OrderedDict
from collections.abc import Sequence

from ias.engine.simulation.dispatch import ReplicaView, Request


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:  # noqa: ARG002  # see Policy
        """See Policy."""
        self._next += 1
        return replicas[self._next % len(replicas)].index


class Random:
    """Any."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}|random")  # noqa: S311  # reproducible, not a secret

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:  # noqa: ARG002  # see Policy
        """See Policy."""
        return self._random.choice(replicas).index


class LeastRequests:
    """The replica with the fewest of this gateway's requests; among equals one after the other."""

    def __init__(self) -> None:
        self._first = 0

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:  # noqa: ARG002  # see Policy
        """See Policy."""
        self._first += 1
        first = self._first % len(replicas)
        return min((*replicas[first:], *replicas[:first]), key=lambda replica: replica.in_flight).index


class LeastQueued:
    """The replica whose metrics show the fewest requests, plus this gateway's own since the scrape is not known: a stale signal."""

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:  # noqa: ARG002  # see Policy
        """See Policy."""
        return min(
            replicas, key=lambda replica: (replica.scrape.waiting + replica.scrape.running, replica.in_flight)
        ).index


class PrefixAffinity:
    """The replica that was sent the longest part of the prompt before, unless it is overloaded: a prototype.

    Remembers every `stride`-th block name that it sent to each replica, the most recent `names_max`. A replica is overloaded with
    more than `load_factor` times the mean of requests in flight (plus one).
    """

    def __init__(self, *, load_factor: float = 1.25, stride: int = 4, names_max: int = 31_250) -> None:
        self._load_factor = load_factor
        self._stride = stride
        self._names_max = names_max
        self._known: dict[int, OrderedDict[int, None]] = {}

    def choose(self, request: Request, replicas: Sequence[ReplicaView], now_s: float) -> int | None:  # noqa: ARG002  # see Policy
        """See Policy."""
        names = request.prompt.names[self._stride - 1 :: self._stride]
        bound = self._load_factor * (sum(replica.in_flight for replica in replicas) + 1) / len(replicas) + 1
        free = [replica for replica in replicas if replica.in_flight < bound] or list(replicas)
        chosen = min(free, key=lambda replica: (-self._match(replica.index, names), replica.in_flight)).index
        known = self._known.setdefault(chosen, OrderedDict())
        for name in names:
            known[name] = None
            known.move_to_end(name)
        while len(known) > self._names_max:
            known.popitem(last=False)
        return chosen

    def _match(self, replica: int, names: Sequence[int]) -> int:
        known = self._known.get(replica)
        if not known:
            return 0
        matched = 0
        for name in names:
            if name not in known:
                break
            matched += 1
        return matched
