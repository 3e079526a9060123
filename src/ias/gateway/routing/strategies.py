"""Which of several candidates takes a request.

`prefix` weighs, in tokens of prompt, what a backend has yet to compute before it comes to this prompt, and what of the prompt it
would have to compute. The warm backend is preferred for as long as the queue before it is shorter than what its cache saves: sticky
until saturated. Among backends that know nothing of the prompt, the owner of its beginning on a hash ring is preferred a little:
gateways that know nothing of one another then choose alike.
"""

import random
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from ias.gateway.routing.asks import Ask
from ias.gateway.routing.loads import Load
from ias.gateway.routing.prefixes import Cache

_POINTS = 32
"""Of each backend on the ring."""


class Tuning(NamedTuple):
    """What was found by measurement: `benchmarks/routing/README.md`."""

    request_tokens: float = 100.0
    """What another answer in the making costs a new one, in tokens of prompt."""
    stickiness: float = 1.5
    """What a token that has to be computed weighs: above 1, since computing it also evicts another one."""
    owner_tokens: float = 200.0
    """How much longer the owner's queue may be than the shortest before another is chosen for a prompt that nobody knows."""


class Candidate:
    """A backend that may be chosen."""

    __slots__ = ("load", "others_waiting", "requests_max", "weight")

    def __init__(
        self, load: Load, *, weight: float, requests_max: float = float("inf"), others_waiting: int = 0
    ) -> None:
        self.load = load
        self.weight = weight
        """Share of traffic: its configured weight, less while it ramps up."""
        self.requests_max = requests_max
        """Of this worker's at a time."""
        self.others_waiting = others_waiting
        """Requests that wait there by its last metrics, beyond those that this worker has sent."""

    @property
    def backend_id(self) -> str:
        """The backend's id."""
        return self.load.backend_id


class Ring:
    """Owners of hashes, by consistent hashing: when a backend comes or goes, few hashes change hands."""

    def __init__(self, ids: Sequence[str]) -> None:
        points = sorted(
            (int.from_bytes(blake2b(f"{name}|{number}".encode(), digest_size=4).digest()), name)
            for name in ids
            for number in range(_POINTS)
        )
        self._points = [point for point, _ in points]
        self._owners = [name for _, name in points]

    def owner(self, value: int) -> str:
        """The owner of a 32-bit value."""
        return self._owners[bisect_left(self._points, value) % len(self._owners)]

    def owners(self, value: int) -> list[str]:
        """All of them, the owner first, then who would be it without those before."""
        at = bisect_left(self._points, value)
        return list(dict.fromkeys(self._owners[at:] + self._owners[:at]))


class Guess(NamedTuple):
    """Where a prompt that this worker does not know may be cached, since other workers send it there too."""

    owner: str
    """The owner of its beginning."""
    trust: float
    """The part of such prompts that was found there."""


def choose_prefix(
    ask: Ask, candidates: Sequence[Candidate], matched: dict[Cache, int], guess: Guess | None, tuning: Tuning
) -> Candidate:
    """The candidate that would probably begin to answer first; `matched` is what of the prompt each cache is known to hold."""
    request_tokens, stickiness, owner_tokens = tuning
    prompt = stickiness * ask.tokens
    owner, trust = guess or (None, 0.0)
    owned = owner_tokens + trust * prompt
    best, least = candidates[0], float("inf")
    for candidate in candidates:
        load = candidate.load
        burden = load.pending_tokens + request_tokens * (load.requests + candidate.others_waiting) + prompt
        if matched:
            burden -= stickiness * matched.get(load.cache, 0)
        elif load.backend_id == owner:
            burden -= owned
        burden /= candidate.weight
        if burden < least:
            best, least = candidate, burden
    return best


def choose_least_tokens(ask: Ask, candidates: Sequence[Candidate]) -> Candidate:
    """The one with the fewest tokens in flight for its weight, this request's counted in."""
    tokens = ask.tokens + ask.output_tokens
    return min(candidates, key=lambda candidate: (candidate.load.tokens + tokens) / candidate.weight)


def choose_weighted(candidates: Sequence[Candidate], draw: random.Random) -> Candidate:
    """By lot."""
    return draw.choices(candidates, [candidate.weight for candidate in candidates])[0]


def choose_priority(candidates: Sequence[Candidate]) -> Candidate:
    """The first in order of id."""
    return min(candidates, key=lambda candidate: candidate.load.backend_id)
