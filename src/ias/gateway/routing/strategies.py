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
from math import ceil
from typing import Final, NamedTuple

from ias.gateway.routing.asks import Ask
from ias.gateway.routing.loads import REQUEST_TOKENS, Load
from ias.gateway.routing.prefixes import Cache

_POINTS: Final = 32
"""Of each backend on the ring."""


PENDING_TOKENS_MAX: Final = 2048
"""Of prompts that a backend is given, by all gateways, before it has begun to answer them: one of vLLM's usual steps, and
always one prompt. More would wait in its queue, where nobody's turn is heeded."""
STICKINESS: Final = 1.5
"""What a token that has to be computed weighs: above 1, since computing it also evicts another one."""
OWNER_TOKENS: Final = 200
"""How much longer the owner's queue may be than the shortest before another is chosen for a prompt that nobody knows."""


class Candidate:
    """A backend that may be chosen."""

    __slots__ = ("load", "others_burden", "requests_max", "weight")

    def __init__(
        self, load: Load, *, weight: float, requests_max: float = float("inf"), others_waiting: int = 0
    ) -> None:
        self.load = load
        self.weight = weight
        """Share of traffic: its configured weight, less while it ramps up."""
        self.requests_max = requests_max
        """Of this worker's at a time."""
        self.others_burden = REQUEST_TOKENS * others_waiting
        """Of the requests that wait there by its last metrics, beyond those that this worker has sent."""

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
    ask: Ask,
    candidates: Sequence[Candidate],
    matched: dict[Cache, int],
    guess: Guess | None,
    free: frozenset[str] | None = None,
    *,
    is_even: bool,
) -> Candidate:
    """The candidate that would probably begin to answer first.

    `matched` is what of the prompt each cache is known to hold; `free` are the backends without prompts that this worker cannot
    see, where others are full of them; `is_even` says that all candidates weigh the same.
    """
    prompt = STICKINESS * ask.tokens
    whole = int(prompt)  # whole numbers are added up and written down in half the time
    owner, trust = ("", 0.0) if matched or guess is None else guess
    burdens: list[int] = []
    for candidate in candidates:
        load = candidate.load
        burden = load.burden + candidate.others_burden + whole
        if matched:
            burden -= int(STICKINESS * matched.get(load.cache, 0))
        elif load.backend_id == owner:
            burden -= ceil(OWNER_TOKENS + trust * prompt)
        if free is not None and load.backend_id not in free:
            burden += PENDING_TOKENS_MAX
        burdens.append(burden)
    if not is_even:
        weighed = [burden / c.weight for burden, c in zip(burdens, candidates, strict=True)]
        ask.looked_at, ask.burdens = candidates, [int(burden) for burden in weighed]
        return candidates[weighed.index(min(weighed))]
    ask.looked_at, ask.burdens = candidates, burdens
    return candidates[_find_least(burdens)]


def _find_least(burdens: list[int]) -> int:
    """The index of the first of the least, in half the time of `index` and `min`."""
    best, least = 0, burdens[0]
    for index, burden in enumerate(burdens):
        if burden < least:
            best, least = index, burden
    return best


def choose_least_tokens(ask: Ask, candidates: Sequence[Candidate], draw: random.Random) -> Candidate:
    """The one with the fewest tokens in flight for its weight, this request's counted in.

    Of several by lot: workers know of their own requests alone, and would else all begin at the same one.
    """
    tokens = ask.tokens + ask.output_tokens
    burdens = [(c.load.tokens + tokens) / c.weight for c in candidates]
    ask.looked_at, ask.burdens = candidates, [int(burden) for burden in burdens]
    least = min(burdens)
    return draw.choice([c for c, burden in zip(candidates, burdens, strict=True) if burden == least])


def choose_weighted(candidates: Sequence[Candidate], draw: random.Random) -> Candidate:
    """By lot."""
    return draw.choices(candidates, [candidate.weight for candidate in candidates])[0]


def choose_priority(candidates: Sequence[Candidate]) -> Candidate:
    """The first in order of id."""
    return min(candidates, key=lambda candidate: candidate.load.backend_id)
