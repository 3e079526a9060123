"""LoRA adapters in PostgreSQL."""

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.registry.store.tables import ADAPTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter that a backend's server has loaded, and the model that it is to clients."""

    id: UUID
    backend_id: UUID
    model_id: UUID
    name: str
    """The name the server knows it by."""
    created_at: datetime
    deleted_at: datetime | None


async def insert_adapter(connection: AsyncConnection, adapter: Adapter) -> None:
    """Store a new adapter."""
    await connection.execute(insert(ADAPTERS).values(asdict(adapter)))


async def mark_adapter_deleted(connection: AsyncConnection, adapter_id: UUID, at: datetime) -> None:
    """The adapter is served no more."""
    await connection.execute(update(ADAPTERS).where(ADAPTERS.c.id == adapter_id).values(deleted_at=at))


async def find_adapter(connection: AsyncConnection, adapter_id: UUID) -> Adapter | None:
    """The adapter, unless there is none or it was deleted."""
    query = select(ADAPTERS).where(ADAPTERS.c.id == adapter_id, ADAPTERS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return Adapter(**row) if row else None


async def list_adapters(
    connection: AsyncConnection,
    *,
    backend_id: UUID | None = None,
    model_id: UUID | None = None,
    after: UUID | None = None,
    limit: int | None = None,
) -> list[Adapter]:
    """Adapters that were not deleted, newest first, after an id; of one backend, of one model, or all."""
    query = select(ADAPTERS).where(ADAPTERS.c.deleted_at.is_(None)).order_by(ADAPTERS.c.id.desc()).limit(limit)
    if backend_id is not None:
        query = query.where(ADAPTERS.c.backend_id == backend_id)
    if model_id is not None:
        query = query.where(ADAPTERS.c.model_id == model_id)
    if after is not None:
        query = query.where(ADAPTERS.c.id < after)
    return [Adapter(**row) for row in (await connection.execute(query)).mappings()]
