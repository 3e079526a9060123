"""What reconciliations found, kept for a while."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import RECONCILIATIONS
from ias.kit.partitions import uuid_floor

_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One run. Without differences the books are one."""

    id: UUID
    started_at: datetime
    finished_at: datetime
    start: datetime
    end: datetime
    """The hours that were compared; counters are compared as they are."""
    differences: list[dict[str, Any]]
    skipped: list[str]
    """What could not be compared, and why."""


async def insert_reconciliation(connection: AsyncConnection, run: Reconciliation) -> None:
    """Keep a run, and no longer those of a quarter ago."""
    await connection.execute(insert(RECONCILIATIONS).values(asdict(run)))
    await connection.execute(delete(RECONCILIATIONS).where(RECONCILIATIONS.c.id < uuid_floor(run.started_at - _KEPT)))


async def list_reconciliations(connection: AsyncConnection, *, before: UUID | None, limit: int) -> list[Reconciliation]:
    """Runs, newest first."""
    query = select(RECONCILIATIONS).order_by(RECONCILIATIONS.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(RECONCILIATIONS.c.id < before)
    return [Reconciliation(**row) for row in (await connection.execute(query)).mappings()]
