"""What each project, key, user or model of an org has cost, by the hourly projection of the ledger."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import SPEND_HOURLY
from ias.contracts.spending import ScopeKind


@dataclass(frozen=True, slots=True)
class Sum:
    """Entries of the ledger, corrections and credits included, and what they come to in nano-USD."""

    entries: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class Balances:
    """The scopes that cost most, and all of the org's together."""

    total: Sum
    largest: list[tuple[str | None, Sum]]
    """By id, or public name for a model; None is what belongs to none of the kind (an org's credit has no project)."""


async def sum_balances(
    connection: AsyncConnection,
    org_id: UUID,
    kind: ScopeKind,
    *,
    start: datetime | None,
    end: datetime | None,
    limit: int,
) -> Balances:
    """An org's balances over the full hours from `start` on and before `end`; without them over all time."""
    hourly = SPEND_HOURLY
    scope_id = hourly.c.model if kind == "model" else hourly.c[f"{kind}_id"]
    entries, cost = func.sum(hourly.c.entries), func.sum(hourly.c.cost_nano_usd)
    query = (
        select(scope_id, entries, cost, func.sum(entries).over(), func.sum(cost).over())
        .where(hourly.c.org_id == org_id)
        .group_by(scope_id)
        .order_by(cost.desc(), scope_id)
        .limit(limit)
    )
    if start is not None:
        query = query.where(hourly.c.hour >= start)
    if end is not None:
        query = query.where(hourly.c.hour < end)
    rows = list(await connection.execute(query))
    total = Sum(int(rows[0][3]), int(rows[0][4])) if rows else Sum(0, 0)
    return Balances(total, [(None if row[0] is None else str(row[0]), Sum(int(row[1]), int(row[2]))) for row in rows])
