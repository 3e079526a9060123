"""Routing for one model: who takes a request, who waits, who is next.

    candidates → group (stable or canary) → strategy → place

`ask` gives a request a Place, or says why there is none. What has to wait is put in `queue`, and `next_placed` gives those who are
due their places, whenever one has become free.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from math import ceil
from typing import Final
from zlib import crc32

from ias.contracts.backend_states import BackendState
from ias.contracts.routes import Backend, ModelRoute
from ias.gateway.routing.asks import Ask
from ias.gateway.routing.candidates import Survey, survey_backends
from ias.gateway.routing.explanations import Layout
from ias.gateway.routing.fair_queue import FairQueue, Share, Waiting
from ias.gateway.routing.given_work import Kept
from ias.gateway.routing.loads import Load, Place
from ias.gateway.routing.prefixes import CUTS, PrefixTable
from ias.gateway.routing.strategies import (
    PENDING_TOKENS_MAX,
    Candidate,
    Guess,
    Ring,
    choose_least_tokens,
    choose_prefix,
    choose_priority,
    choose_weighted,
)

_OWNED: Final = 3
"""The beginning that has an owner is the third, where there are so many: 144 tokens."""
_OUTPUT_FIRST: Final = 256.0
_OUTPUT_RATE: Final = 0.02
_TRUST_FIRST: Final = 0.95
_TRUST_RATE: Final = 0.05
_WORTH_WAITING_TOKENS: Final = 1000
"""A guess is waited for when it probably saves the computing of so many tokens."""
_HEADROOM: Final = 4.0
"""How much more than they use is kept free for those who take less than their part; a quarter to half of all backends."""
_CROWD_TOKENS: Final = PENDING_TOKENS_MAX // 2
"""Of a newcomer's prompts that are not begun: others keep out of its way, since it may have as many by every worker."""
_NEVER: Final = float("inf")
_SHORT_AFTER_S: Final = 0.3
"""Backends are kept free when requests have waited for so long without a break. Where there is enough, caches decide alone."""
_KEPT_S: Final = 3.0
"""For so many seconds as much is kept free as was needed at most."""


class Verdict(Enum):
    """Why there is no place."""

    BUSY = "busy"
    """Whoever may take it has no room."""
    COLD = "cold"
    """Whoever could take it is asleep."""
    NONE = "none"
    """Nobody can."""


class ModelRouter:
    """One worker's routing for one model. Told of changes by `update`, of the time by whoever asks."""

    def __init__(
        self,
        route: ModelRoute,
        *,
        draw: random.Random,
        queue_length_max: int = 1000,
    ) -> None:
        self.route = route
        self.loads: dict[str, Load] = {}
        self.backends: dict[str, Backend] = {}
        self.survey: Survey
        self.queue = FairQueue(queue_length_max)
        self.table = PrefixTable()
        self._draw = draw
        self._canary_debt = 0
        self._ring = Ring(())
        self._sharers = 1
        self._pending_max = PENDING_TOKENS_MAX
        self.output_tokens = _OUTPUT_FIRST
        """Of an answer, by experience."""
        self.trust = _TRUST_FIRST
        """What part of a prompt that this worker has never seen is probably cached at the owner of its beginning, by experience."""
        self._layout = Layout(Ask(""), ())
        self.asks_names = self.asks_session = self._is_sticky = False
        """What of a request has a part in the choice: the names of its prompt's beginnings, its session."""
        self._is_even = True
        """Whether all that may be chosen weigh the same."""
        self._modest: frozenset[str] = frozenset()
        self._kept: frozenset[str] = frozenset()
        self._surely_kept: frozenset[str] = frozenset()
        """Those that all workers keep free."""
        self._order: list[str] = []
        """Ids of the backends that are to be had, the same in all workers: from its beginning they are kept free."""
        self._spared: frozenset[str] = frozenset()
        """The first half, which newcomers may not fill."""
        self._waits_since = _NEVER
        self.kept_needed = 0
        """How many are to be kept free by what this worker sees."""
        self._needed_until = 0.0
        self._heard = Kept(0, 0)
        self._heard_until = 0.0

    def update(
        self, route: ModelRoute, states: Mapping[str, BackendState], *, now_s: float, unix_s: float, sharers: int = 1
    ) -> None:
        """Look at the backends anew: the route or what is known of them has changed, or time has passed."""
        self.route = route
        policy = route.policy
        self.asks_names, self._is_sticky = policy.strategy == "prefix", policy.is_sticky
        self.asks_session = policy.is_sticky or policy.canary_percent > 0
        self._sharers = sharers
        self._pending_max = PENDING_TOKENS_MAX // sharers
        self.queue.tells = sharers > 1
        ids = [backend.id for backend in route.backends]
        if ids != list(self.backends):
            self._ring = Ring(ids)
            self.loads = {name: self.loads.get(name) or Load(name) for name in ids}
        self.backends = {backend.id: backend for backend in route.backends}
        self.survey = survey_backends(route.backends, states, self.loads, now_s=now_s, unix_s=unix_s, sharers=sharers)
        weights = {c.weight for tier in self.survey.tiers for c in (*tier.stable, *tier.canary)}
        self._is_even = len(weights) <= 1
        self._put_in_order()
        for name, reason in self.survey.reasons.items():
            if reason in ("unready", "cold", "failed_recently"):
                self.loads[name].forget_cache()

    def _put_in_order(self) -> None:
        usual = self.survey.tiers[0].stable if self.survey.tiers else ()
        order = sorted((c.backend_id for c in usual), key=lambda name: crc32(name.encode()))
        if order != self._order:
            self._order, self._spared = order, frozenset(order[: len(order) // 2])
            self._kept = frozenset(order[: len(self._kept)])
            self._surely_kept = frozenset(order[: len(self._surely_kept)])

    # -------------------------------------------------------------- choice

    def ask(self, ask: Ask) -> Place | Verdict:
        """A place for a request, now."""
        found = self._find_place(ask)
        if self.queue.newcomers and isinstance(found, Place):
            newcomer = self.queue.newcomers.get(ask.org_id)
            if newcomer is not None:
                newcomer.note(found)
        return found

    def _find_place(self, ask: Ask) -> Place | Verdict:
        survey = self.survey
        ask.obstacles = survey.reasons
        for stable, canary in survey.tiers:
            candidates = self._pick_group(ask, stable, canary) if canary or ask.tried else stable
            if candidates:
                if self._kept and ask.org_id not in self._modest:
                    candidates = _without(candidates, self._kept)
                    ask.left_free = self._kept
                return self._place(ask, candidates)
        candidates = _untried(survey.last_resort, ask)[:1]
        if candidates:
            return self._place(ask, candidates)
        return Verdict.COLD if survey.cold else Verdict.NONE

    def outlook(self, ask: Ask) -> Verdict:
        """What a request may wait for."""
        survey = self.survey
        if any(_untried((*tier.stable, *tier.canary), ask) for tier in survey.tiers) or _untried(
            survey.last_resort, ask
        ):
            return Verdict.BUSY
        return Verdict.COLD if survey.cold else Verdict.NONE

    def _pick_group(self, ask: Ask, stable: Sequence[Candidate], canary: Sequence[Candidate]) -> Sequence[Candidate]:
        """The candidates of the group that the request falls to, or of the other where it has none."""
        if ask.tried:
            stable, canary = _untried(stable, ask), _untried(canary, ask)
        if not canary:
            return stable
        return canary if not stable or self._is_for_canary(ask) else stable

    def _is_for_canary(self, ask: Ask) -> bool:
        """By the session, where there is one; else so that the share is exact: each request adds it, each canary takes a whole."""
        percent = self.route.policy.canary_percent
        if ask.session is not None:
            return ask.session % 100 < percent
        self._canary_debt += percent
        if self._canary_debt < 100:
            return False
        self._canary_debt -= 100
        return True

    def explain(self, ask: Ask) -> str:
        """A JSON object of every backend: why it could not be chosen, or its burden, of which the least was chosen."""
        layout = self._layout
        if not layout.fits(ask):
            layout = self._layout = Layout(ask, self.backends)
        return layout.fill(ask)

    def _place(self, ask: Ask, candidates: Sequence[Candidate]) -> Place | Verdict:
        if not self.asks_names or (self._is_sticky and ask.session is not None):
            return self._place_by_load(ask, candidates)
        if not candidates:
            return Verdict.BUSY
        names = ask.names
        matched = self.table.match(names)
        guess = None if matched or not names else Guess(self._ring.owner(names[:_OWNED][-1]), self.trust)
        free = None
        if self._kept or self.queue.newcomers:
            free = self._find_free(ask)
            if not matched:
                candidates = self._spare(ask, candidates)
                if not candidates:
                    return Verdict.BUSY
        chosen = choose_prefix(ask, candidates, matched, guess, free, is_even=self._is_even)
        load = chosen.load
        ask.is_guess = guess is not None and load.backend_id == guess.owner
        if load.requests >= chosen.requests_max or load.pending_tokens >= self._pending_max:
            if load.cache in matched or (ask.is_guess and self.trust * ask.tokens > _WORTH_WAITING_TOKENS):
                return Verdict.BUSY  # to wait for the warm one takes less than to begin from nothing
            candidates = [c for c in candidates if self._has_room(c)]
            if not candidates:
                return Verdict.BUSY
            load = choose_prefix(ask, candidates, matched, guess, free, is_even=self._is_even).load
        known = matched.get(load.cache, 0)
        if names and (not known or known < CUTS[len(names) - 1]):
            self.table.note(names, load.cache)
        pending = ask.tokens - known if ask.is_streamed and ask.tokens > known else 0
        return Place(load, ask.tokens + ask.output_tokens, pending)

    def _place_by_load(self, ask: Ask, candidates: Sequence[Candidate]) -> Place | Verdict:
        """By the strategies that know nothing of caches."""
        ask.looked_at, ask.burdens = (), []
        policy = self.route.policy
        roomy = [c for c in self._spare(ask, candidates) if self._has_room(c)]
        if not roomy:
            return Verdict.BUSY
        if policy.is_sticky and ask.session is not None:
            chosen = self._stay(ask.session, roomy)
        elif policy.strategy == "least_tokens":
            chosen = choose_least_tokens(ask, roomy, self._draw)
        elif policy.strategy == "weighted":
            chosen = choose_weighted(roomy, self._draw)
        else:
            chosen = choose_priority(roomy)
        return Place(chosen.load, ask.tokens + ask.output_tokens, ask.tokens if ask.is_streamed else 0)

    def _spare(self, ask: Ask, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Half of them for an org that came a moment ago and has a prompt somewhere that is not begun.

        By the time that it is known how much it asks for, its prompts would be everywhere. All workers spare the same half.
        """
        newcomer = self.queue.newcomers.get(ask.org_id) if self.queue.newcomers else None
        return _without(candidates, self._spared) if newcomer is not None and newcomer.unbegun_tokens else candidates

    def _find_free(self, ask: Ask) -> frozenset[str] | None:
        """Where there are none of the prompts that other workers send and this one cannot see; None: all are alike."""
        if self._sharers == 1:
            return None
        if self._kept:
            return self._surely_kept if ask.org_id in self._modest else None
        if ask.org_id in self.queue.newcomers:
            return None
        crowds = any(one.unbegun_tokens >= _CROWD_TOKENS for one in self.queue.newcomers.values())
        return self._spared if crowds else None

    def learn(self, ask: Ask, *, cached_tokens: int, output_tokens: int) -> None:
        """What of a prompt was found in the cache that it was sent to, and how long the answer was."""
        self.output_tokens += _OUTPUT_RATE * (output_tokens - self.output_tokens)
        if ask.is_guess and ask.tokens:
            self.trust += _TRUST_RATE * (min(cached_tokens / ask.tokens, 1.0) - self.trust)

    def _has_room(self, candidate: Candidate) -> bool:
        load = candidate.load
        return load.requests < candidate.requests_max and load.pending_tokens < self._pending_max

    def _stay(self, session: int, candidates: Sequence[Candidate]) -> Candidate:
        by_id = {candidate.backend_id: candidate for candidate in candidates}
        return next(by_id[name] for name in self._ring.owners(session & 0xFFFFFFFF) if name in by_id)

    # -------------------------------------------------------------- turns

    def look_at_shares(self, now_s: float) -> None:
        """Keep backends free for those who take less than their part: enough for what they need.

        A turn in the queue is soon had, but behind it are the prompts that a backend was given before. Where the modest have a
        backend to themselves they are served as if they were alone. Called now and then.
        """
        share = self.queue.share(now_s)
        self._modest = share.modest
        needed = self._count_needed(share) if self._is_short(now_s) else 0
        if needed >= self.kept_needed or now_s >= self._needed_until:
            self.kept_needed, self._needed_until = needed, now_s + _KEPT_S
        heard = self._heard if now_s < self._heard_until else Kept(0, 0)
        count = max(self.kept_needed, heard.most)
        surely = (heard.surely if self._sharers > 1 else 0) or count
        if count != len(self._kept) or surely != len(self._surely_kept):
            self._kept, self._surely_kept = frozenset(self._order[:count]), frozenset(self._order[:surely])

    def _is_short(self, now_s: float) -> bool:
        if not self.queue.length:
            self._waits_since = _NEVER
        return now_s - self._waits_since >= _SHORT_AFTER_S

    def _note_shortage(self, now_s: float) -> None:
        """All who could be placed have been. While there is room left, those who wait do so for a cache."""
        shut = self._kept | self._spared if self.queue.newcomers else self._kept
        if any(self._has_room(c) for tier in self.survey.tiers[:1] for c in tier.stable if c.backend_id not in shut):
            self._waits_since = _NEVER
        elif self._waits_since == _NEVER:
            self._waits_since = now_s

    def _count_needed(self, share: Share) -> int:
        backends = len(self._order)
        if not share.modest_work or not share.other_work or backends < 2:
            return 0
        others_per_backend = share.other_work / (backends - len(self._kept))
        used = share.modest_work / others_per_backend
        return min(max(ceil(_HEADROOM * used), backends // 4), backends // 2)

    def hear_kept(self, kept: Kept, now_s: float) -> None:
        """How many all workers together keep free."""
        self._heard, self._heard_until = kept, now_s + _KEPT_S

    def next_placed(self, now_s: float) -> Iterator[tuple[Waiting, Place]]:
        """Who waits and is due a place, with the place, until there is none for anybody."""
        if self.queue.length:
            self.look_at_shares(now_s)
        while self.queue.length:
            for waiting in self.queue.next():
                found = self.ask(waiting.ask)
                if isinstance(found, Place):
                    self.queue.remove(waiting)
                    yield waiting, found
                    break
            else:
                self._note_shortage(now_s)
                return


def _untried(candidates: Sequence[Candidate], ask: Ask) -> Sequence[Candidate]:
    return [c for c in candidates if c.load.backend_id not in ask.tried] if ask.tried else candidates


def _without(candidates: Sequence[Candidate], ids: frozenset[str]) -> Sequence[Candidate]:
    return [c for c in candidates if c.load.backend_id not in ids]
