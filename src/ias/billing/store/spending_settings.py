"""What an org says of its spending in general."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import SPENDING_SETTINGS
from ias.contracts.spending import QUEUE_WEIGHT_USUAL, UTC_ZONE, Unpriced


@dataclass(frozen=True, slots=True)
class SpendingSettings:
    """An org's settings; an org that never said anything has these."""

    org_id: UUID
    time_zone: str = UTC_ZONE
    """Of budgets that are made without one."""
    unpriced: Unpriced | None = None
    unguarded_nano_usd: int | None = None
    """What each gateway worker lets through in one outage of Redis; None: nothing."""
    queue_weight: int = QUEUE_WEIGHT_USUAL
    version: int = 0
    updated_at: datetime | None = None


async def get_settings(connection: AsyncConnection, org_id: UUID) -> SpendingSettings:
    """An org's settings."""
    query = select(SPENDING_SETTINGS).where(SPENDING_SETTINGS.c.org_id == org_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return SpendingSettings(**row) if row else SpendingSettings(org_id)


async def list_settings(connection: AsyncConnection) -> list[SpendingSettings]:
    """The settings of every org that has some."""
    return [SpendingSettings(**row) for row in (await connection.execute(select(SPENDING_SETTINGS))).mappings()]


async def change_settings(
    connection: AsyncConnection, before: SpendingSettings, values: dict[str, Any]
) -> SpendingSettings:
    """Change an org's settings; they as they then are, one version further."""
    table = SPENDING_SETTINGS
    kept = {
        "time_zone": before.time_zone,
        "unpriced": before.unpriced,
        "unguarded_nano_usd": before.unguarded_nano_usd,
        "queue_weight": before.queue_weight,
    }
    row = {"org_id": before.org_id, **kept, **values, "version": before.version + 1, "updated_at": func.now()}
    change = insert(table).values(row).on_conflict_do_update(index_elements=["org_id"], set_=row).returning(table)
    return SpendingSettings(**(await connection.execute(change)).mappings().one())
