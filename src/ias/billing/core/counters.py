"""Spending counters: what billing vouches for in them, and what they say.

Gateways count what they admit. What they cannot know, billing adds when a counter is set up: the cost, by the ledger, of requests
admitted earlier in the same window, before Redis lost its data or before the gateways knew the budget. Which requests those are,
the ledger tells at any time: by the time in their id and the budgets that their decision record names. So one that is booked late
is added when it is booked. Corrections and credits are billing's to count in any counter: they belong to the window they are booked
in.

A budget whose window rolls has a counter for each part of it, and what it spent is the sum of those that count at a moment. Its
parts begin at full hours in UTC, so the hourly balances tell what belongs in which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.book_sums import sum_window, sum_window_hours
from ias.billing.store.budgets import Budget
from ias.billing.store.counters import Counter, CounterStore, Cut, Reason
from ias.billing.store.spend import (
    Scope,
    list_adjusted_orgs,
    sum_adjustment_hours,
    sum_adjustments,
    sum_usage,
    sum_usage_hours,
)
from ias.contracts import redis_keys
from ias.contracts.spending import COUNTER_KEPT_S, WindowPart, is_rolling
from ias.kit.database import Database

POLICY_REACHES_GATEWAYS = timedelta(minutes=1)
"""How long after a budget was made a gateway may still admit without knowing it. They hear of it within a second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FORGET_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Spend:
    """What a budget's current window says, in nano-USD."""

    window_id: str
    spent_nano_usd: int
    reserved_nano_usd: int


@dataclass(frozen=True, slots=True)
class _Counted:
    """A part of a budget's window, and its counter."""

    part: WindowPart
    key: str
    counter: Counter


class Counters:
    """The counters of budgets. `redis.RedisError` is the caller's to handle."""

    def __init__(self, database: Database, store: CounterStore) -> None:
        self._database = database
        self._store = store

    async def read(self, budgets: Sequence[Budget], now: datetime) -> list[Spend]:
        """What was spent and is reserved in each budget's window."""
        return [
            Spend(
                budget.window_id(now),
                sum(one.counter.settled for one in counted),
                sum(one.counter.reserved for one in counted),
            )
            for budget, counted in zip(budgets, await self._read(budgets, now), strict=True)
        ]

    async def read_settled(self, budgets: Sequence[Budget], now: datetime) -> list[dict[str, int]]:
        """What was spent in each part of each budget's window, by the part's id."""
        return [{one.part.id: one.counter.settled for one in counted} for counted in await self._read(budgets, now)]

    async def foresee(self, budget: Budget) -> Spend:
        """What a budget's counter will say when it is set up."""
        cut = cut_now("new_budget")
        now = _moment(cut)
        vouched_for = await self._vouched_for(budget, cut)
        async with self._database.transaction() as connection:
            adjusted = await _sum_adjustments(connection, budget, now)
        return Spend(budget.window_id(now), sum(vouched_for.values()) + sum(adjusted.values()), 0)

    async def set_up(self, budget: Budget, cut: Cut) -> None:
        """Give a budget's counters billing's part, unless they have one."""
        vouched_for = await self._vouched_for(budget, cut)
        for part_id, from_ledger in vouched_for.items():
            expire_s = COUNTER_KEPT_S[budget.window]
            await self._store.set_up(_key(budget, part_id), cut, from_ledger=from_ledger, expire_s=expire_s)
        await self.adjust([budget], _moment(cut))

    async def add_stragglers(self, budgets: Sequence[Budget], now: datetime, awaited: timedelta) -> int:
        """Add what was booked since for requests that billing vouches for, where the cut is not older than `awaited`.

        Gives how many counters that changed.
        """
        changed = 0
        for budget, counted in zip(budgets, await self._read(budgets, now), strict=True):
            cuts = {one.counter.cut for one in counted if one.counter.cut is not None}
            for cut in cuts:
                if now - _moment(cut) < awaited:
                    changed += await self._correct(counted, cut, await self._vouched_for(budget, cut))
        return changed

    async def adjust(self, budgets: Sequence[Budget], now: datetime) -> int:
        """Bring the corrections and credits of the current windows into the counters; how many counters that changed.

        Counters are read before the ledger is: whoever else does the same meanwhile, what is known later is what stays.
        """
        async with self._database.transaction() as connection:
            orgs = await list_adjusted_orgs(connection, {budget.org_id for budget in budgets})
        adjusted = [budget for budget in budgets if budget.org_id in orgs]
        read = await self._read(adjusted, now)
        async with self._database.transaction() as connection:
            wanted = [await _sum_adjustments(connection, budget, now) for budget in adjusted]
        changed = 0
        for budget, counted, amounts in zip(adjusted, read, wanted, strict=True):
            for one in counted:
                amount = amounts[one.part.id]
                if one.counter.adjusted != amount:
                    expire_s = COUNTER_KEPT_S[budget.window]
                    changed += await self._store.adjust(one.key, one.counter, amount, expire_s=expire_s)
        return changed

    async def bound_settled(
        self, budget: Budget, at: datetime, *, uncertainty: timedelta
    ) -> dict[str, tuple[int, int]]:
        """What the ledger says now that each part's counter had to say at a moment, by the part's id.

        Least and most, for requests that ended just then.
        """
        parts, scope = budget.parts(at), _scope(budget)
        sums: list[dict[str, int]] = []
        async with self._database.transaction() as connection:
            for until in (at - uncertainty, at + uncertainty):
                if is_rolling(budget.window):
                    hours = await sum_window_hours(connection, scope, since=_begin(parts), counted_until=until)
                    sums.append(_by_part(hours, parts))
                else:
                    spent = await sum_window(connection, scope, since=parts[0].start, counted_until=until)
                    sums.append({parts[0].id: spent})
        one, other = sums
        return {part.id: (min(one[part.id], other[part.id]), max(one[part.id], other[part.id])) for part in parts}

    async def repair(self, budget: Budget, part_id: str, difference_nano_usd: int) -> None:
        """Add to what the counter of a part of the window says was spent."""
        await self._store.add(_key(budget, part_id), difference_nano_usd)

    async def forget(self, budget: Budget, now: datetime) -> None:
        """Let a deleted budget's counters go, after the requests that still hold a part of them."""
        for part in budget.parts(now):
            await self._store.expire(_key(budget, part.id), _FORGET_S)

    async def _read(self, budgets: Sequence[Budget], now: datetime) -> list[list[_Counted]]:
        parts = [[(part, _key(budget, part.id)) for part in budget.parts(now)] for budget in budgets]
        counters = iter(await self._store.read([key for own in parts for _, key in own]))
        return [[_Counted(part, key, next(counters)) for part, key in own] for own in parts]

    async def _correct(self, counted: Sequence[_Counted], cut: Cut, vouched_for: Mapping[str, int]) -> int:
        changed = 0
        for one in counted:
            if one.counter.cut == cut and one.part.id in vouched_for:
                difference = vouched_for[one.part.id] - one.counter.from_ledger
                if difference:
                    changed += await self._store.correct(one.key, one.counter, difference)
        return changed

    async def _vouched_for(self, budget: Budget, cut: Cut) -> dict[str, int]:
        """Nano-USD, by the ledger, of the window's requests that no gateway counted in its counters, by the part's id."""
        moment = _moment(cut)
        is_new = cut.reason == "new_budget"
        before = moment + POLICY_REACHES_GATEWAYS if is_new else moment
        parts, not_held_by = budget.parts(moment), budget.id if is_new else None
        async with self._database.transaction() as connection:
            if is_rolling(budget.window):
                hours = await sum_usage_hours(
                    connection, _scope(budget), since=_begin(parts), before=before, not_held_by=not_held_by
                )
                return _by_part(hours, parts)
            spent = await sum_usage(
                connection, _scope(budget), since=parts[0].start, before=before, not_held_by=not_held_by
            )
            return {parts[0].id: spent}


def cut_now(reason: Reason) -> Cut:
    """A cut at this moment."""
    return Cut((datetime.now(UTC) - _EPOCH) // timedelta(milliseconds=1), reason)


def _scope(budget: Budget) -> Scope:
    return Scope(budget.org_id, budget.scope_kind, budget.scope_id)


def _moment(cut: Cut) -> datetime:
    return _EPOCH + timedelta(milliseconds=cut.millis)


def _key(budget: Budget, part_id: str) -> str:
    return redis_keys.budget_counter(str(budget.org_id), str(budget.id), part_id)


async def _sum_adjustments(connection: AsyncConnection, budget: Budget, now: datetime) -> dict[str, int]:
    """Nano-USD of the window's corrections and credits, by the part's id."""
    parts = budget.parts(now)
    if is_rolling(budget.window):
        return _by_part(await sum_adjustment_hours(connection, _scope(budget), since=_begin(parts)), parts)
    return {parts[0].id: await sum_adjustments(connection, _scope(budget), since=parts[0].start)}


def _begin(parts: Sequence[WindowPart]) -> datetime:
    """Of a window that rolls."""
    return parts[-1].start or _EPOCH


def _by_part(hours: Mapping[datetime, int], parts: Sequence[WindowPart]) -> dict[str, int]:
    """Sums of hours as sums of parts; the newest part has what is later than all of them, too."""
    sums = {part.id: 0 for part in parts}
    for hour, nano_usd in hours.items():
        within = next(part for part in parts if part.start is None or part.start <= hour)
        sums[within.id] += nano_usd
    return sums
