"""Rate limits. A deleted one stays as a row, so that old decisions can still be explained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import RATE_LIMITS
from ias.contracts import spending


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A ceiling on one metric for a scope of an org."""

    id: UUID
    org_id: UUID
    scope_kind: spending.ScopeKind
    scope_id: str
    metric: spending.Metric
    limit: int
    version: int
    """Grows with every change of this row."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None

    def published(self) -> spending.RateLimit:
        """The form in which gateways know it."""
        return spending.RateLimit(
            id=str(self.id),
            scope_kind=self.scope_kind,
            scope_id=self.scope_id,
            metric=self.metric,
            limit=self.limit,
        )


async def insert_rate_limit(connection: AsyncConnection, limit: RateLimit) -> bool:
    """Add a rate limit, unless its scope has one on the same metric; whether it was added."""
    added = insert(RATE_LIMITS).values(asdict(limit)).on_conflict_do_nothing().returning(RATE_LIMITS.c.id)
    return (await connection.execute(added)).one_or_none() is not None


async def count_rate_limits(connection: AsyncConnection, org_id: UUID) -> int:
    """How many rate limits an org has."""
    query = select(func.count()).where(RATE_LIMITS.c.org_id == org_id, RATE_LIMITS.c.deleted_at.is_(None))
    return await connection.scalar(query) or 0


async def find_rate_limit(connection: AsyncConnection, limit_id: UUID) -> RateLimit | None:
    """A rate limit that was not deleted."""
    query = select(RATE_LIMITS).where(RATE_LIMITS.c.id == limit_id, RATE_LIMITS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return RateLimit(**row) if row else None


async def list_rate_limits(
    connection: AsyncConnection, org_id: UUID, *, before: UUID | None = None, limit: int | None = None
) -> list[RateLimit]:
    """An org's rate limits, newest first."""
    query = select(RATE_LIMITS).where(RATE_LIMITS.c.org_id == org_id, RATE_LIMITS.c.deleted_at.is_(None))
    if before is not None:
        query = query.where(RATE_LIMITS.c.id < before)
    rows = await connection.execute(query.order_by(RATE_LIMITS.c.id.desc()).limit(limit))
    return [RateLimit(**row) for row in rows.mappings()]


async def list_all_rate_limits(connection: AsyncConnection) -> list[RateLimit]:
    """Every org's rate limits, newest first."""
    query = select(RATE_LIMITS).where(RATE_LIMITS.c.deleted_at.is_(None)).order_by(RATE_LIMITS.c.id.desc())
    return [RateLimit(**row) for row in (await connection.execute(query)).mappings()]


async def change_rate_limit(connection: AsyncConnection, limit: RateLimit, values: Mapping[str, Any]) -> RateLimit:
    """Change columns of a rate limit; the limit as it then is, one version further."""
    change = (
        update(RATE_LIMITS)
        .where(RATE_LIMITS.c.id == limit.id)
        .values({**values, "version": RATE_LIMITS.c.version + 1, "updated_at": func.now()})
        .returning(*RATE_LIMITS.c)
    )
    return RateLimit(**(await connection.execute(change)).mappings().one())
