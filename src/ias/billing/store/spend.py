"""What was spent, summed: the hourly projection of the ledger."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, CompoundSelect, Select, Table, func, literal_column, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.ledger import LedgerEntry
from ias.billing.store.tables import LEDGER_ENTRIES, SPEND_HOURLY
from ias.contracts.spending import ScopeKind
from ias.kit.partitions import hour_number, hour_of, hour_sql, uuid_floor

_ADD = text(
    """
    INSERT INTO spend_hourly AS s (org_id, hour, project_id, api_key_id, user_id, model, entries, cost_nano_usd)
    SELECT * FROM unnest(
        CAST(:org_id AS uuid[]), CAST(:hour AS timestamptz[]), CAST(:project_id AS uuid[]), CAST(:api_key_id AS uuid[]),
        CAST(:user_id AS uuid[]), CAST(:model AS text[]), CAST(:entries AS bigint[]), CAST(:cost_nano_usd AS bigint[])
    ) AS t (org_id, hour, project_id, api_key_id, user_id, model, entries, cost_nano_usd)
    ORDER BY org_id, hour, project_id, api_key_id, user_id, model
    ON CONFLICT (org_id, hour, project_id, api_key_id, user_id, model)
    DO UPDATE SET entries = s.entries + excluded.entries, cost_nano_usd = s.cost_nano_usd + excluded.cost_nano_usd
    """
)
# Every transaction takes the rows in the same order, so that two that book at once wait for each other and never deadlock.

LEDGER_HOUR: ColumnElement[datetime] = literal_column(hour_sql("ledger_entries.id"))
"""Of a ledger entry: the hour in UTC in which its request was admitted."""

_PLACE_NAMES = ("org_id", "project_id", "api_key_id", "user_id", "model")

_RECENT = timedelta(hours=1)
"""No request takes longer from its id to its admission."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose spending is meant."""

    org_id: UUID
    kind: ScopeKind
    id: str
    """An id, or the public name for a model."""

    def condition(self, table: Table) -> ColumnElement[bool]:
        """The rows of a table that the scope covers."""
        own = table.c.org_id == self.org_id
        match self.kind:
            case "org":
                return own
            case "model":
                return own & (table.c.model == self.id)
            case "project" | "api_key" | "user":
                return own & (table.c[f"{self.kind}_id"] == UUID(self.id))


async def add_entries(connection: AsyncConnection, entries: Iterable[LedgerEntry]) -> None:
    """Add entries that were just booked, each exactly once, in the transaction that booked them."""
    alike: dict[tuple[object, ...], list[LedgerEntry]] = {}
    for entry in entries:
        alike.setdefault(_place_of(entry), []).append(entry)
    if not alike:
        return
    firsts = [some[0] for some in alike.values()]
    columns: dict[str, list[Any]] = {name: [getattr(first, name) for first in firsts] for name in _PLACE_NAMES}
    columns["hour"] = [hour_of(first.id) for first in firsts]
    columns["entries"] = [len(some) for some in alike.values()]
    columns["cost_nano_usd"] = [sum(entry.cost_nano_usd for entry in some) for some in alike.values()]
    await connection.execute(_ADD, columns)


def _place_of(entry: LedgerEntry) -> tuple[object, ...]:
    """Which row of the projection counts it. Numbers are told apart in a fifth of the time that UUIDs take."""
    project, key, user = entry.project_id, entry.api_key_id, entry.user_id
    return (
        hour_number(entry.id), entry.org_id.int, project and project.int, key and key.int, user and user.int, entry.model
    )  # fmt: skip


async def sum_usage(
    connection: AsyncConnection,
    scope: Scope,
    *,
    since: datetime | None,
    before: datetime,
    not_held_by: UUID | None = None,
) -> int:
    """Nano-USD that a scope's requests cost that were admitted from `since` on and before `before`.

    With `not_held_by`, recent requests whose decision record names that budget are left out. Older hours come from the projection,
    less its corrections and credits, the recent ones from the ledger itself, and so does the rest of the hour that `since` is in
    (some zones' midnights are in the middle of one); all in one statement, hence as of one moment.
    """
    recent = before.replace(minute=0, second=0, microsecond=0) - _RECENT
    recent = max(recent, since) if since else recent
    full = min(next_full_hour(since), recent) if since else None
    hourly, ledger = SPEND_HOURLY, LEDGER_ENTRIES
    old_sum = select(func.coalesce(func.sum(hourly.c.cost_nano_usd), 0)).where(
        scope.condition(hourly), hourly.c.hour < recent, *([hourly.c.hour >= full] if full else [])
    )
    recent_sum = select(func.coalesce(func.sum(ledger.c.cost_nano_usd), 0)).where(
        scope.condition(ledger),
        ledger.c.kind == "usage",
        ledger.c.id >= uuid_floor(recent),
        ledger.c.id < uuid_floor(before),
    )
    if not_held_by is not None:
        held = ledger.c.decision["budgets"].contains([str(not_held_by)])
        recent_sum = recent_sum.where(func.coalesce(held, False).is_(False))
    adjusted = _adjustments(scope, full, recent)
    total = select(old_sum.scalar_subquery() + recent_sum.scalar_subquery() - adjusted.scalar_subquery())
    if since is not None and full is not None and since < full:
        first_sum = select(func.coalesce(func.sum(ledger.c.cost_nano_usd), 0)).where(
            scope.condition(ledger),
            ledger.c.kind == "usage",
            ledger.c.id >= uuid_floor(since),
            ledger.c.id < uuid_floor(full),
        )
        total = select(total.scalar_subquery() + first_sum.scalar_subquery())
    return int(await connection.scalar(total) or 0)


async def sum_usage_hours(
    connection: AsyncConnection,
    scope: Scope,
    *,
    since: datetime,
    before: datetime,
    not_held_by: UUID | None = None,
) -> dict[datetime, int]:
    """The same by hour, from a full hour on; hours in which nothing was spent may be absent."""
    recent = max(before.replace(minute=0, second=0, microsecond=0) - _RECENT, since)
    hourly, ledger = SPEND_HOURLY, LEDGER_ENTRIES
    old = (
        select(hourly.c.hour, func.sum(hourly.c.cost_nano_usd).label("cost"))
        .where(scope.condition(hourly), hourly.c.hour >= since, hourly.c.hour < recent)
        .group_by(hourly.c.hour)
    )
    late = (
        select(LEDGER_HOUR.label("hour"), func.sum(ledger.c.cost_nano_usd).label("cost"))
        .where(
            scope.condition(ledger),
            ledger.c.kind == "usage",
            ledger.c.id >= uuid_floor(recent),
            ledger.c.id < uuid_floor(before),
        )
        .group_by("hour")
    )
    if not_held_by is not None:
        held = ledger.c.decision["budgets"].contains([str(not_held_by)])
        late = late.where(func.coalesce(held, False).is_(False))
    return await sum_by_hour(connection, union_all(old, late, _adjustment_hours(scope, -1, since, recent)))


async def sum_by_hour(connection: AsyncConnection, query: CompoundSelect[Any] | Select[Any]) -> dict[datetime, int]:
    """What rows of `hour` and `cost` add up to, by hour."""
    hours: dict[datetime, int] = defaultdict(int)
    for row in await connection.execute(query):
        hours[row.hour] += int(row.cost)
    return dict(hours)


def next_full_hour(moment: datetime) -> datetime:
    """The moment itself where it is one."""
    full = moment.replace(minute=0, second=0, microsecond=0)
    return full if full == moment else full + timedelta(hours=1)


async def sum_adjustments(connection: AsyncConnection, scope: Scope, *, since: datetime | None) -> int:
    """Nano-USD of a scope's corrections and credits that were booked from `since` on."""
    return int(await connection.scalar(_adjustments(scope, since, None)) or 0)


async def sum_adjustment_hours(connection: AsyncConnection, scope: Scope, *, since: datetime) -> dict[datetime, int]:
    """The same by the hour in which they were booked; hours without any are absent."""
    return await sum_by_hour(connection, _adjustment_hours(scope, 1, since, None))


async def list_adjusted_orgs(connection: AsyncConnection, org_ids: Collection[UUID]) -> set[UUID]:
    """Those of the orgs that ever had a correction or a credit."""
    ledger = LEDGER_ENTRIES
    theirs = select(ledger.c.org_id).distinct().where(ledger.c.org_id.in_(list(org_ids)), ledger.c.kind != "usage")
    return set((await connection.execute(theirs)).scalars())


def _adjustments(scope: Scope, since: datetime | None, before: datetime | None) -> Select[tuple[int]]:
    ledger = LEDGER_ENTRIES
    booked = select(func.coalesce(func.sum(ledger.c.cost_nano_usd), 0)).where(
        scope.condition(ledger), ledger.c.kind != "usage"
    )
    if since is not None:
        booked = booked.where(ledger.c.id >= uuid_floor(since))
    if before is not None:
        booked = booked.where(ledger.c.id < uuid_floor(before))
    return booked


def _adjustment_hours(scope: Scope, sign: Literal[1, -1], since: datetime, before: datetime | None) -> Select[Any]:
    ledger = LEDGER_ENTRIES
    booked = select(LEDGER_HOUR.label("hour"), (sign * func.sum(ledger.c.cost_nano_usd)).label("cost")).where(
        scope.condition(ledger), ledger.c.kind != "usage", ledger.c.id >= uuid_floor(since)
    )
    if before is not None:
        booked = booked.where(ledger.c.id < uuid_floor(before))
    return booked.group_by("hour")
