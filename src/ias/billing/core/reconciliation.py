"""Reconciliation: are all books one? The ledger, its hourly balances, analytics' records and rollups, Redis' counters, engines.

Sums over full hours are compared exactly. So are counters: a counter is read, and a moment later the ledger is asked for what it
had to say then, up to the requests that ended in the very seconds around. What differs is looked at again; only what differs in
the same way each time is a difference, everything else was on its way.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import httpx
import structlog
from redis.exceptions import RedisError
from sqlalchemy import text

from ias.billing.core.analytics_client import AnalyticsClient
from ias.billing.core.counters import Counters
from ias.billing.core.engine_check import EngineCheck
from ias.billing.store import book_sums, budgets, reconciliations
from ias.billing.store.book_sums import Figures, Hour
from ias.billing.store.budgets import Budget
from ias.billing.store.reconciliations import Reconciliation
from ias.contracts.ids import uuid7
from ias.kit.database import Database
from ias.kit.writes import is_dry_run

log = structlog.get_logger("ias.billing")

Check = Literal["balances", "usage_records", "usage_rollups", "counters", "engines"]
"""What is held against the ledger (rollups: against the usage records)."""

CHECKS: tuple[Check, ...] = ("balances", "usage_records", "usage_rollups", "counters", "engines")
_ATTEMPTS = 3
_REQUESTS_NAMED_MAX = 20
_DIFFERENCES_MAX = 1_000

Key = tuple[Check, UUID | None, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two books that do not say the same."""

    check: Check
    org_id: UUID | None
    """None: engines serve every org."""
    subject: str
    """The hour, the budget or the server."""
    expected: Figures
    found: Figures
    missing: tuple[str, ...] = ()
    """Requests that the ledger has and the other book has not."""
    unknown: tuple[str, ...] = ()
    """Requests that the other book has and the ledger has not."""
    repaired: bool = False

    def told(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "check": self.check,
            "org_id": str(self.org_id) if self.org_id else None,
            "subject": self.subject,
            "expected": self.expected,
            "found": self.found,
            "missing": list(self.missing),
            "unknown": list(self.unknown),
            "repaired": self.repaired,
        }


@dataclass
class _Seen:
    """What one look found."""

    differences: dict[Key, Difference] = field(default_factory=dict)
    skipped: dict[Check, str] = field(default_factory=dict)
    counters: dict[Key, tuple[Budget, str, int]] = field(default_factory=dict)
    """Of differing counters: the budget, the part of its window, and what it lacks."""


class Reconciler:
    """Compares, repairs counters where asked to, and keeps what was found."""

    def __init__(
        self,
        database: Database,
        counters: Counters,
        analytics: AnalyticsClient | None,
        engines: EngineCheck | None = None,
        *,
        pause_s: float,
        uncertainty: timedelta,
    ) -> None:
        """`uncertainty`: between a settlement's time by a gateway's clock and its arrival in Redis, by the clock of who reads."""
        self._database = database
        self._counters = counters
        self._analytics = analytics
        self._engines = engines
        self._pause_s = pause_s
        self._uncertainty = uncertainty

    async def run(self, *, hours: int, repair: bool) -> Reconciliation:
        """Compare the last full hours, and the counters as they are. A dry run repairs and keeps nothing."""
        started_at = datetime.now(UTC)
        end = started_at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        start = end - timedelta(hours=hours)
        first = await self._look(start, end)
        lasting = first
        for _ in range(_ATTEMPTS - 1):
            if not lasting.differences:
                break
            await asyncio.sleep(self._pause_s)
            again = await self._look(start, end)
            again.differences = {
                key: again.differences[key]
                for key, difference in lasting.differences.items()
                if key in again.differences and _is_same(difference, again.differences[key])
            }
            lasting = again
        found = [lasting.differences[key] for key in sorted(lasting.differences, key=str)][:_DIFFERENCES_MAX]
        if repair and not is_dry_run():
            found = [await self._repair(difference, lasting) for difference in found]
        skipped = [f"{check}: {why}" for check, why in lasting.skipped.items()]
        run = Reconciliation(
            uuid7(), started_at, datetime.now(UTC), start, end, [difference.told() for difference in found], skipped
        )
        for difference in found:
            log.error("books differ", **difference.told())
        if not is_dry_run():
            async with self._database.transaction() as connection:
                await reconciliations.insert_reconciliation(connection, run)
        return run

    async def list_runs(self, *, before: UUID | None, limit: int) -> list[Reconciliation]:
        """What earlier runs found, newest first."""
        async with self._database.transaction() as connection:
            return await reconciliations.list_reconciliations(connection, before=before, limit=limit)

    async def _look(self, start: datetime, end: datetime) -> _Seen:
        seen = _Seen()
        async with self._database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            ledger = await book_sums.sum_ledger(connection, start, end)
            balances = await book_sums.sum_projection(connection, start, end)
        for org_id, hour in _differing(ledger.booked, balances):
            expected, found = ledger.booked.get((org_id, hour), {}), balances.get((org_id, hour), {})
            _note(seen, Difference("balances", org_id, hour.isoformat(), expected, found))
        await self._look_at_usage(seen, ledger.used, start, end)
        await self._look_at_engines(seen, start, end)
        await self._look_at_counters(seen)
        return seen

    async def _look_at_usage(self, seen: _Seen, used: dict[Hour, Figures], start: datetime, end: datetime) -> None:
        if self._analytics is None:
            seen.skipped["usage_records"] = "IAS_SERVICE_SECRET is not set, so analytics cannot be asked"
            return
        try:
            records, rollups = await self._analytics.sum_hours(start, end)
            for org_id, hour in _differing(records, rollups):
                expected, found = records.get((org_id, hour), {}), rollups.get((org_id, hour), {})
                _note(seen, Difference("usage_rollups", org_id, hour.isoformat(), expected, found))
            for org_id, hour in _differing(used, records):
                missing, unknown = await self._name_requests(org_id, hour)
                expected, found = used.get((org_id, hour), {}), records.get((org_id, hour), {})
                _note(seen, Difference("usage_records", org_id, hour.isoformat(), expected, found, missing, unknown))
        except (httpx.HTTPError, KeyError, ValueError) as error:
            seen.skipped["usage_records"] = f"analytics cannot be asked ({type(error).__name__})"

    async def _look_at_engines(self, seen: _Seen, start: datetime, end: datetime) -> None:
        if self._engines is None:
            seen.skipped["engines"] = "IAS_SERVICE_SECRET is not set, so the registry cannot be asked"
            return
        try:
            differences = await self._engines.list_differences(start, end)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            seen.skipped["engines"] = f"the registry cannot be asked ({type(error).__name__})"
            return
        for one in differences:
            _note(seen, Difference("engines", None, one.server, one.expected, one.found))

    async def _name_requests(self, org_id: UUID, hour: datetime) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self._analytics is None:
            return (), ()
        until = hour + timedelta(hours=1)
        async with self._database.transaction() as connection:
            ours = await book_sums.list_recorded_requests(connection, org_id, hour, until)
        theirs = await self._analytics.list_requests(org_id, hour, until)
        return _first(ours - theirs), _first(theirs - ours)

    async def _look_at_counters(self, seen: _Seen) -> None:
        async with self._database.transaction() as connection:
            every = [one for one in await budgets.list_all_budgets(connection) if one.counted_from is not None]
        now = datetime.now(UTC)
        try:
            settled = await self._counters.read_settled(every, now)
        except (RedisError, OSError) as error:
            seen.skipped["counters"] = f"Redis is away ({type(error).__name__})"
            return
        await asyncio.sleep(self._pause_s)
        for budget, parts in zip(every, settled, strict=True):
            bounds = await self._counters.bound_settled(budget, now, uncertainty=self._uncertainty)
            for part_id, (least, most) in bounds.items():
                if not least <= parts[part_id] <= most:
                    _note_counter(seen, budget, part_id, least if parts[part_id] < least else most, parts[part_id])

    async def _repair(self, difference: Difference, seen: _Seen) -> Difference:
        """Counters are a projection, and follow the ledger. Nothing else is changed by a machine."""
        if difference.check != "counters":
            return difference
        budget, part_id, lacks = seen.counters[_key(difference)]
        await self._counters.repair(budget, part_id, lacks)
        return Difference(
            difference.check,
            difference.org_id,
            difference.subject,
            difference.expected,
            difference.found,
            repaired=True,
        )


def _key(difference: Difference) -> Key:
    return difference.check, difference.org_id, difference.subject


def _note(seen: _Seen, difference: Difference) -> Key:
    seen.differences[_key(difference)] = difference
    return _key(difference)


def _note_counter(seen: _Seen, budget: Budget, part_id: str, nearest: int, found: int) -> None:
    subject = f"budget {budget.id} {part_id}"
    told = Difference("counters", budget.org_id, subject, {"spent_nano_usd": nearest}, {"spent_nano_usd": found})
    seen.counters[_note(seen, told)] = (budget, part_id, nearest - found)


def _differing(one: Mapping[Hour, Figures], other: Mapping[Hour, Figures]) -> list[Hour]:
    return sorted(hour for hour in {*one, *other} if one.get(hour) != other.get(hour))


def _first(requests: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(requests)[:_REQUESTS_NAMED_MAX])


def _is_same(one: Difference, other: Difference) -> bool:
    """Whether a difference has lasted: the same requests are missing, or the figures differ by the same. Engines go on counting."""
    named = {*one.missing, *one.unknown} & {*other.missing, *other.unknown}
    return one.check == "engines" or bool(named) or _lacks(one) == _lacks(other)


def _lacks(difference: Difference) -> dict[str, int]:
    expected, found = difference.expected, difference.found
    return {name: expected.get(name, 0) - found.get(name, 0) for name in {*expected, *found}}
