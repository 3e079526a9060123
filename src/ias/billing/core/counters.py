"""Spending counters: what billing vouches for in them, and what they say.

Gateways count what they admit. What they cannot know, billing adds when a counter is set up: the cost, by the ledger, of requests
admitted earlier in the same window, before Redis lost its data or before the gateways knew the budget. Which requests those are,
the ledger tells at any time: by the time in their id and the budgets that their decision record names. So one that is booked late
is added when it is booked. Corrections and credits are billing's to count in any counter: they belong to the window they are booked
in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ias.billing.store.book_sums import sum_window
from ias.billing.store.budgets import Budget
from ias.billing.store.counters import Counter, CounterStore, Cut, Reason
from ias.billing.store.spend import Scope, list_adjusted_orgs, sum_adjustments, sum_usage
from ias.contracts import redis_keys
from ias.contracts.spending import Window
from ias.kit.database import Database

POLICY_REACHES_GATEWAYS = timedelta(minutes=1)
"""How long after a budget was made a gateway may still admit without knowing it. They hear of it within a second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EXPIRE_S: dict[Window, int | None] = {"day": 3 * 86_400, "week": 15 * 86_400, "month": 45 * 86_400, "total": None}
_FORGET_S = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Spend:
    """What a budget's current window says, in nano-USD."""

    window_id: str
    spent_nano_usd: int
    reserved_nano_usd: int


class Counters:
    """The counters of budgets. `redis.RedisError` is the caller's to handle."""

    def __init__(self, database: Database, store: CounterStore) -> None:
        self._database = database
        self._store = store

    async def read(self, budgets: Sequence[Budget], now: datetime) -> list[Spend]:
        """What was spent and is reserved in each budget's window."""
        counters = await self._store.read([_key(budget, now) for budget in budgets])
        return [
            Spend(budget.window_id(now), counter.settled, counter.reserved)
            for budget, counter in zip(budgets, counters, strict=True)
        ]

    async def foresee(self, budget: Budget) -> Spend:
        """What a budget's counter will say when it is set up."""
        cut = cut_now("new_budget")
        moment = _moment(cut)
        return Spend(budget.window_id(moment), await self._vouched_for(budget, cut), 0)

    async def set_up(self, budget: Budget, cut: Cut) -> None:
        """Give a counter billing's part, unless it has one."""
        from_ledger = await self._vouched_for(budget, cut)
        key = _key(budget, _moment(cut))
        await self._store.set_up(key, cut, from_ledger=from_ledger, expire_s=_EXPIRE_S[budget.window])
        await self.adjust([budget], _moment(cut))

    async def add_stragglers(self, budgets: Sequence[Budget], now: datetime, awaited: timedelta) -> int:
        """Add what was booked since for requests that billing vouches for, where the cut is not older than `awaited`.

        Gives how many counters that changed.
        """
        changed = 0
        counters = await self._store.read([_key(budget, now) for budget in budgets])
        for budget, counter in zip(budgets, counters, strict=True):
            if counter.cut is not None and now - _moment(counter.cut) < awaited:
                changed += await self._correct(budget, counter, counter.cut)
        return changed

    async def adjust(self, budgets: Sequence[Budget], now: datetime) -> int:
        """Bring the corrections and credits of the current windows into the counters; how many counters that changed."""
        async with self._database.transaction() as connection:
            orgs = await list_adjusted_orgs(connection, {budget.org_id for budget in budgets})
            adjusted = {
                budget: await sum_adjustments(connection, _scope(budget), since=budget.window_start(now))
                for budget in budgets
                if budget.org_id in orgs
            }
        changed = 0
        counters = await self._store.read([_key(budget, now) for budget in adjusted])
        for (budget, wanted), counter in zip(adjusted.items(), counters, strict=True):
            if counter.adjusted != wanted:
                expire_s = _EXPIRE_S[budget.window]
                changed += await self._store.adjust(_key(budget, now), counter, wanted, expire_s=expire_s)
        return changed

    async def bound_settled(self, budget: Budget, at: datetime, *, uncertainty: timedelta) -> tuple[int, int]:
        """What the ledger says now that the counter had to say at a moment: least and most, for requests that ended just then."""
        since = budget.window_start(at)
        async with self._database.transaction() as connection:
            sums = [
                await sum_window(connection, _scope(budget), since=since, counted_until=until)
                for until in (at - uncertainty, at + uncertainty)
            ]
        return min(sums), max(sums)

    async def repair(self, budget: Budget, at: datetime, difference_nano_usd: int) -> None:
        """Add to what the counter of a moment's window says was spent."""
        await self._store.add(_key(budget, at), difference_nano_usd)

    async def forget(self, budget: Budget, now: datetime) -> None:
        """Let a deleted budget's counter go, after the requests that still hold a part of it."""
        await self._store.expire(_key(budget, now), _FORGET_S)

    async def _correct(self, budget: Budget, counter: Counter, cut: Cut) -> bool:
        difference = await self._vouched_for(budget, cut) - counter.from_ledger
        if difference == 0:
            return False
        return await self._store.correct(_key(budget, _moment(cut)), counter, difference)

    async def _vouched_for(self, budget: Budget, cut: Cut) -> int:
        """Nano-USD, by the ledger, of the window's requests that no gateway counted in this counter."""
        moment = _moment(cut)
        is_new = cut.reason == "new_budget"
        async with self._database.transaction() as connection:
            return await sum_usage(
                connection,
                _scope(budget),
                since=budget.window_start(moment),
                before=moment + POLICY_REACHES_GATEWAYS if is_new else moment,
                not_held_by=budget.id if is_new else None,
            )


def cut_now(reason: Reason) -> Cut:
    """A cut at this moment."""
    return Cut((datetime.now(UTC) - _EPOCH) // timedelta(milliseconds=1), reason)


def _scope(budget: Budget) -> Scope:
    return Scope(budget.org_id, budget.scope_kind, budget.scope_id)


def _moment(cut: Cut) -> datetime:
    return _EPOCH + timedelta(milliseconds=cut.millis)


def _key(budget: Budget, moment: datetime) -> str:
    return redis_keys.budget_counter(str(budget.org_id), str(budget.id), budget.window_id(moment))
