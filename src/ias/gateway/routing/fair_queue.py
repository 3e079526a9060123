"""Requests that wait for a place, in turn between orgs.

Every org has a counter of the work that it was given, and the org with the least is next: the virtual token counters of Sheng et
al., "Fairness in Serving Large Language Models" (OSDI 2024). What counts is the work divided by the org's weight. Work is counted
when a request is given its place, as expected, and corrected when it is over, so that what an org has in flight is not free; what
was found in a cache is not counted. An org that was away comes back at the least counter of those who are here, without what is
only expected of theirs: absence earns nothing.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from ias.contracts.spending import QUEUE_WEIGHT_USUAL
from ias.gateway.routing.asks import PRIORITIES, Ask
from ias.gateway.routing.loads import Place

_KEPT_MAX: Final = 10_000
_LOOKED_AT_MAX: Final = 16
_MODEST: Final = 0.5
"""Of the part that its weight gives it: who was given less than this much of that takes less than its part. What equals are given
differs by a third from one moment to the next."""
RECENT_S: Final = 2.0
"""Half-life of what counts as an org's recent work."""
_HEARD_FRESH_S: Final = 5.0
_NEW_S: Final = 1.0
"""How long an org that comes is a newcomer."""


class Waiting:
    """A request in the queue."""

    __slots__ = ("ask", "for_whom", "is_waiting", "since")

    def __init__(self, ask: Ask, for_whom: Any, since: float) -> None:
        self.ask = ask
        self.for_whom = for_whom
        """Whoever is to be told."""
        self.since = since
        self.is_waiting = True


class Share(NamedTuple):
    """Orgs that were lately given less than their part of all work, how much they were given, and how much the others."""

    modest: frozenset[str]
    modest_work: float
    other_work: float


class Newcomer:
    """An org that came a moment ago, while others were here already: nobody knows yet how much it will ask for."""

    __slots__ = ("_places", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self._places: list[Place] = []

    def note(self, place: Place) -> None:
        """It was given a place."""
        self._places.append(place)

    @property
    def unbegun_tokens(self) -> int:
        """Of its prompts whose answers have not begun, less what is probably cached."""
        self._places = [place for place in self._places if not place.has_begun]
        return sum(place.pending for place in self._places)


class _Org:
    """One org's counter and what it has waiting."""

    __slots__ = ("_recent", "_recent_at", "in_flight", "is_new", "lines", "unsettled", "waiting", "weight", "work")

    def __init__(self, work: float) -> None:
        self.weight = QUEUE_WEIGHT_USUAL
        self.work = work
        """That it was given, for its weight."""
        self._recent = 0.0
        self._recent_at = 0.0
        self.is_new = True
        """Whether it was given nothing lately."""
        self.in_flight = 0
        self.unsettled = 0.0
        """What of its work is only expected: its requests in flight."""
        self.waiting = 0
        self.lines: dict[str, deque[Waiting]] = {}

    @property
    def is_here(self) -> bool:
        """Whether it has anything waiting or in flight."""
        return bool(self.waiting or self.in_flight)

    def recent(self, now_s: float) -> float:
        """What it was given lately, older work counting less."""
        return float(self._recent * 0.5 ** ((now_s - self._recent_at) / RECENT_S))

    def give(self, work: float, now_s: float) -> None:
        """Count work that it is given, as expected."""
        if now_s != self._recent_at:  # the clock ticks far less often than requests come
            self._recent = self.recent(now_s)
            self._recent_at = now_s
        self._recent += work
        counted = work / self.weight
        self.work += counted
        self.unsettled += counted

    def weigh(self, weight: int) -> None:
        """Its weight is another: what is only expected of it will be settled by the new one."""
        expected = self.unsettled * self.weight / weight
        self.work += expected - self.unsettled
        self.unsettled, self.weight = expected, weight

    def next(self) -> Iterator[Waiting]:
        """Who is next, by priority and then by arrival; not all of them."""
        left = _LOOKED_AT_MAX
        for priority in PRIORITIES:
            line = self.lines.get(priority)
            while line and not line[0].is_waiting:
                line.popleft()
            for waiting in line or ():
                if not left:
                    return
                if waiting.is_waiting:
                    left -= 1
                    yield waiting

    def last(self) -> Waiting | None:
        """Who came last, of the lowest priority."""
        for priority in reversed(PRIORITIES):
            for waiting in reversed(self.lines.get(priority, ())):
                if waiting.is_waiting:
                    return waiting
        return None


class FairQueue:
    """The queue of one model. Bounded: the newest request of whoever has most in it makes room."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._orgs: dict[str, _Org] = {}
        self._near: dict[str, _Org] = {}
        """Those who are here, or were given something lately: all that is looked at again and again."""
        self._floor = 0.0
        self._weight_here = 0
        """Of all orgs that were given anything lately."""
        self.newcomers: dict[str, Newcomer] = {}
        self.tells = False
        """Whether others serve the model as well, and are told what is given here."""
        self._untold: dict[str, float] = {}
        self._heard: Mapping[str, float] = {}
        self._heard_at = 0.0
        self.length = 0

    # -------------------------------------------------------------- work

    def charge(
        self, org_id: str, work: float, now_s: float, weight: int = QUEUE_WEIGHT_USUAL, place: Place | None = None
    ) -> None:
        """The org, of that weight, is given the place for so much work."""
        org = self._orgs.get(org_id) or self._enter(org_id)
        if org.work < self._floor and not org.is_here:
            org.work = self._floor
        if org.weight != weight:
            org.weigh(weight)
        if org.is_new:
            self._welcome(org_id, org, now_s, place)
        org.in_flight += 1
        org.give(work, now_s)
        if self.tells:
            self._untold[org_id] = self._untold.get(org_id, 0.0) + work

    def _welcome(self, org_id: str, org: _Org, now_s: float, place: Place | None) -> None:
        org.is_new = False
        self._near[org_id] = org
        if self._weight_here:
            newcomer = self.newcomers[org_id] = Newcomer(now_s + _NEW_S)
            if place is not None:
                newcomer.note(place)

    def settle(self, org_id: str, *, charged: float, used: float) -> None:
        """One of its requests is over, and was more work than it was charged for, or less."""
        org = self._orgs[org_id]
        org.in_flight -= 1
        org.unsettled = org.unsettled - charged / org.weight if org.in_flight else 0.0
        org.work += (used - charged) / org.weight

    def _enter(self, org_id: str) -> _Org:
        if len(self._orgs) >= _KEPT_MAX:
            self._forget()
        org = self._orgs[org_id] = _Org(self._floor)
        return org

    def _forget(self) -> None:
        """Those who are away and have nothing on account."""
        for org_id, org in tuple(self._orgs.items()):
            if not org.is_here and org.work <= self._floor:
                del self._orgs[org_id]
                self._near.pop(org_id, None)
        self._untold.clear()

    def _raise_floor(self) -> None:
        """To the least counter of those who are here, without what is only expected of theirs."""
        here = [org.work - org.unsettled for org in self._near.values() if org.is_here]
        if here:
            self._floor = max(self._floor, min(here))

    # -------------------------------------------------------------- the line

    def push(self, waiting: Waiting) -> Waiting | None:
        """Put a request in line; who has to leave for it, which may be itself."""
        ask = waiting.ask
        org = self._orgs.get(ask.org_id) or self._enter(ask.org_id)
        if not org.is_here and org.work < self._floor:
            org.work = self._floor
        if org.weight != ask.weight:
            org.weigh(ask.weight)
        self._near[ask.org_id] = org
        org.lines.setdefault(ask.priority, deque()).append(waiting)
        org.waiting += 1
        self.length += 1
        if self.length <= self._length_max:
            return None
        longest = max(self._near.values(), key=lambda org: org.waiting)
        leaves = longest.last()
        if leaves is not None:
            self.remove(leaves)
        return leaves

    def remove(self, waiting: Waiting) -> None:
        """Take a request out of the line, served or not; nothing happens when it is out already."""
        if waiting.is_waiting:
            waiting.is_waiting = False
            self._orgs[waiting.ask.org_id].waiting -= 1
            self.length -= 1

    def next(self) -> Iterator[Waiting]:
        """The first few of each org that has any, in the order of the orgs' turns.

        Not only the very first: it may be waiting for the backend that has its prompt cached, while another has room for the
        second.
        """
        here = sorted((org for org in self._near.values() if org.waiting), key=lambda org: org.work)
        self._raise_floor()
        for org in here:
            yield from org.next()

    def overdue(self, since: float) -> list[Waiting]:
        """Take out those who have waited since then or longer."""
        late = [
            waiting
            for org in self._near.values()
            if org.waiting
            for line in org.lines.values()
            for waiting in line
            if waiting.is_waiting and waiting.since <= since
        ]
        for waiting in late:
            self.remove(waiting)
        return late

    def share(self, now_s: float) -> Share:
        """Who has lately been given how much. Called now and then."""
        self._raise_floor()
        self._see_newcomers_off(now_s)
        recent = self._find_recent(now_s)
        total = sum(recent.values())
        weights = {name: self._near[name].weight if name in self._near else QUEUE_WEIGHT_USUAL for name in recent}
        self._weight_here = sum(weights.values())
        part = _MODEST * total / self._weight_here if recent else 0.0
        modest = {name: work for name, work in recent.items() if work < part * weights[name]}
        modest_work = sum(modest.values())
        return Share(frozenset(modest), modest_work, total - modest_work)

    def _see_newcomers_off(self, now_s: float) -> None:
        for name in [name for name, newcomer in self.newcomers.items() if newcomer.until <= now_s]:
            del self.newcomers[name]

    def _find_recent(self, now_s: float) -> dict[str, float]:
        """What each org was given lately, here and by others; those are left out who were given nothing and are away."""
        recent = {}
        for name, org in tuple(self._near.items()):
            work = org.recent(now_s)
            if work >= 1 or org.is_here:
                recent[name] = work
            else:
                org.is_new = True
                del self._near[name]
        if now_s - self._heard_at < _HEARD_FRESH_S:
            faded = 0.5 ** ((now_s - self._heard_at) / RECENT_S)
            for name, heard in self._heard.items():
                work = heard * faded + self._untold.get(name, 0.0)
                if work >= 1:
                    recent[name] = max(work, recent.get(name, 0.0))
        return recent

    # -------------------------------------------------------------- other gateways

    def tell(self, orgs_max: int) -> dict[str, int]:
        """What orgs were given here since this was last asked; of very many those who were given most."""
        told, self._untold = self._untold, {}
        most = sorted(told.items(), key=lambda pair: -pair[1])[:orgs_max]
        return {name: round(work) for name, work in most if work >= 1}

    def hear(self, given: Mapping[str, float], now_s: float) -> None:
        """What orgs were lately given by all, this one included, older work counting less."""
        self._heard, self._heard_at = given, now_s
