"""What the ledger adds up to, for its projections and other books to be held against."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.spend import LEDGER_HOUR, Scope, next_full_hour, sum_by_hour
from ias.billing.store.tables import LEDGER_ENTRIES, SPEND_HOURLY
from ias.kit.partitions import hour_sql, uuid_floor

_RECORD = "kind = 'usage' AND rating <> 'reserved'"
"""An entry that stands for a usage record. Those of expired reservations have none, or another entry stands for it."""

_LEDGER = text(
    f"""
    SELECT org_id, {hour_sql("id")} AS hour, count(*) AS entries, sum(cost_nano_usd) AS cost_nano_usd,
        count(*) FILTER (WHERE {_RECORD}) AS requests,
        coalesce(sum(input_tokens) FILTER (WHERE {_RECORD}), 0) AS input_tokens,
        coalesce(sum(cached_input_tokens) FILTER (WHERE {_RECORD}), 0) AS cached_input_tokens,
        coalesce(sum(output_tokens) FILTER (WHERE {_RECORD}), 0) AS output_tokens,
        coalesce(sum(settled_nano_usd) FILTER (WHERE {_RECORD}), 0) AS settled_nano_usd
    FROM ledger_entries WHERE id >= :first AND id < :last GROUP BY 1, 2
    """  # noqa: S608  # names of columns
)
_HOURLY = text(
    "SELECT org_id, hour, sum(entries) AS entries, sum(cost_nano_usd) AS cost_nano_usd FROM spend_hourly"
    " WHERE hour >= :start AND hour < :end GROUP BY 1, 2"
)
_IDS = text(
    "SELECT request_id FROM ledger_entries"  # noqa: S608  # a constant
    f" WHERE org_id = :org_id AND id >= :first AND id < :last AND {_RECORD}"
)

Hour = tuple[UUID, datetime]
"""An org and the first moment of an hour."""
Figures = dict[str, int]

_LONGEST = timedelta(days=1)
"""No request takes longer from its admission to its booking, as far as counters are concerned."""

_BOOKED = ("entries", "cost_nano_usd")
_USED = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "settled_nano_usd")


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """By org and hour."""

    booked: dict[Hour, Figures]
    """Every entry, with its cost."""
    used: dict[Hour, Figures]
    """Those that stand for usage records, with what the gateways said."""


async def sum_ledger(connection: AsyncConnection, start: datetime, end: datetime) -> LedgerSums:
    """Every org's hours from `start` on and before `end`, by the ledger."""
    rows = (await connection.execute(_LEDGER, {"first": uuid_floor(start), "last": uuid_floor(end)})).mappings()
    booked, used = {}, {}
    for row in rows:
        hour = row["org_id"], row["hour"]
        booked[hour] = {name: int(row[name]) for name in _BOOKED}
        if row["requests"]:
            used[hour] = {name: int(row[name]) for name in _USED}
    return LedgerSums(booked, used)


async def sum_projection(connection: AsyncConnection, start: datetime, end: datetime) -> dict[Hour, Figures]:
    """The same by the hourly balances."""
    rows = (await connection.execute(_HOURLY, {"start": start, "end": end})).mappings()
    return {(row["org_id"], row["hour"]): {name: int(row[name]) for name in _BOOKED} for row in rows}


async def list_recorded_requests(connection: AsyncConnection, org_id: UUID, start: datetime, end: datetime) -> set[str]:
    """The requests of an org that have an entry for their usage record."""
    told = {"org_id": org_id, "first": uuid_floor(start), "last": uuid_floor(end)}
    return set((await connection.execute(_IDS, told)).scalars())


async def sum_window(
    connection: AsyncConnection, scope: Scope, *, since: datetime | None, counted_until: datetime
) -> int:
    """Nano-USD of a scope's window, corrections and credits included, that a counter had to say at a moment.

    A gateway counts a request when it settles it, which the entry tells; billing counts the rest when it has booked it. Where the
    window begins in the middle of an hour, as some zones' midnights do, the ledger itself tells the rest of that hour.
    """
    hourly, ledger = SPEND_HOURLY, LEDGER_ENTRIES
    booked = select(func.coalesce(func.sum(hourly.c.cost_nano_usd), 0)).where(scope.condition(hourly))
    total: ColumnElement[int] = booked.scalar_subquery()
    if since is not None:
        full = next_full_hour(since)
        first = select(func.coalesce(func.sum(ledger.c.cost_nano_usd), 0)).where(
            scope.condition(ledger), ledger.c.id >= uuid_floor(since), ledger.c.id < uuid_floor(full)
        )
        total = booked.where(hourly.c.hour >= full).scalar_subquery() + first.scalar_subquery()
    later = select(func.coalesce(func.sum(ledger.c.cost_nano_usd), 0)).where(
        *_counted_later(scope, since, counted_until)
    )
    return int(await connection.scalar(select(total - later.scalar_subquery())) or 0)


async def sum_window_hours(
    connection: AsyncConnection, scope: Scope, *, since: datetime, counted_until: datetime
) -> dict[datetime, int]:
    """The same by the hour in which requests were admitted; hours in which nothing was spent may be absent."""
    hourly, ledger = SPEND_HOURLY, LEDGER_ENTRIES
    booked = (
        select(hourly.c.hour, func.sum(hourly.c.cost_nano_usd).label("cost"))
        .where(scope.condition(hourly), hourly.c.hour >= since)
        .group_by(hourly.c.hour)
    )
    later = (
        select(LEDGER_HOUR.label("hour"), (-func.sum(ledger.c.cost_nano_usd)).label("cost"))
        .where(*_counted_later(scope, since, counted_until))
        .group_by("hour")
    )
    return await sum_by_hour(connection, union_all(booked, later))


def _counted_later(scope: Scope, since: datetime | None, counted_until: datetime) -> tuple[ColumnElement[bool], ...]:
    """Entries of a window that its counter did not have yet at a moment."""
    ledger = LEDGER_ENTRIES
    by_gateway = (ledger.c.kind == "usage") & (ledger.c.rating != "reserved")
    earliest = counted_until - _LONGEST
    return (
        scope.condition(ledger),
        ledger.c.id >= uuid_floor(max(earliest, since or earliest)),
        (by_gateway & (ledger.c.occurred_at > counted_until)) | (~by_gateway & (ledger.c.booked_at > counted_until)),
    )
