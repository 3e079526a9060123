"""Backends in PostgreSQL."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.routes import Group
from ias.registry.store.tables import ADAPTERS, BACKENDS

BackendStatus = Literal["enabled", "disabled"]
Engine = Literal["vllm", "openai", "ias-sim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A server that serves a model."""

    id: UUID
    model_id: UUID
    url: str
    """Base URL, normalised, with the version path and without a slash at the end."""
    weight: int
    upstream_model: str
    """The name the backend itself knows the model by."""
    engine: Engine
    sealed_credential: str | None
    credential_from: str | None
    """Where its credential is kept instead, see `core.credentials`."""
    tier: int
    """Backends of the lowest tier that can serve are used."""
    group: Group
    concurrency_max: int | None
    """How many requests at a time it is said to bear; None is unknown."""
    environment: str | None
    """Where it runs, in the operators' own words."""
    draining: bool
    """Finishes what it has and gets nothing new."""
    status: BackendStatus
    """`disabled` is the kill switch."""
    version: int
    """Grows with every change of this row."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @property
    def has_credential(self) -> bool:
        """Whether requests to the backend carry an API key. The key itself is never shown."""
        return self.sealed_credential is not None or self.credential_from is not None


async def insert_backend(connection: AsyncConnection, backend: Backend) -> None:
    """Store a new backend."""
    await connection.execute(insert(BACKENDS).values(asdict(backend)))


async def replace_backend(connection: AsyncConnection, backend: Backend) -> None:
    """Store every field of a backend that exists."""
    await connection.execute(update(BACKENDS).where(BACKENDS.c.id == backend.id).values(asdict(backend)))


async def find_backend(connection: AsyncConnection, backend_id: UUID) -> Backend | None:
    """The backend, unless there is none or it was deleted."""
    query = select(BACKENDS).where(BACKENDS.c.id == backend_id, BACKENDS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return Backend(**row) if row else None


async def has_canary(connection: AsyncConnection, model_id: UUID) -> bool:
    """Whether a model is served by a backend of the group `canary`, its own or by an adapter."""
    by_adapter = exists().where(
        ADAPTERS.c.backend_id == BACKENDS.c.id, ADAPTERS.c.model_id == model_id, ADAPTERS.c.deleted_at.is_(None)
    )
    query = select(
        exists().where(
            BACKENDS.c.group == "canary",
            BACKENDS.c.deleted_at.is_(None),
            or_(BACKENDS.c.model_id == model_id, by_adapter),
        )
    )
    return bool(await connection.scalar(query))


async def list_backends(
    connection: AsyncConnection, *, model_id: UUID | None, after: UUID | None, limit: int | None
) -> list[Backend]:
    """Backends that were not deleted, newest first, after an id; of one model or of all."""
    query = select(BACKENDS).where(BACKENDS.c.deleted_at.is_(None)).order_by(BACKENDS.c.id.desc()).limit(limit)
    if model_id is not None:
        query = query.where(BACKENDS.c.model_id == model_id)
    if after is not None:
        query = query.where(BACKENDS.c.id < after)
    return [Backend(**row) for row in (await connection.execute(query)).mappings()]
