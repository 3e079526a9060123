"""The append-only list of changes in PostgreSQL."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.registry.store.tables import CHANGES


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord:
    """Who changed what, from what to what, in which request. Secrets are masked before they get here."""

    id: UUID
    at: datetime
    actor: str
    action: str
    target_kind: str
    target_id: UUID
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str
    route_table_version: int
    """The first route table that shows the change."""


async def insert_changes(connection: AsyncConnection, records: list[ChangeRecord]) -> None:
    """Append changes."""
    await connection.execute(insert(CHANGES), [asdict(record) for record in records])


async def list_changes(
    connection: AsyncConnection, *, target_id: UUID | None, after: UUID | None, limit: int
) -> list[ChangeRecord]:
    """Changes, newest first, after an id; of one target or of all."""
    query = select(CHANGES).order_by(CHANGES.c.id.desc()).limit(limit)
    if target_id is not None:
        query = query.where(CHANGES.c.target_id == target_id)
    if after is not None:
        query = query.where(CHANGES.c.id < after)
    return [ChangeRecord(**row) for row in (await connection.execute(query)).mappings()]
