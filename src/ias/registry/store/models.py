"""Models in PostgreSQL."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.registry.store.tables import MODELS

ModelStatus = Literal["enabled", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that clients may ask for by its name."""

    id: UUID
    name: str
    context_length: int
    """Tokens of prompt and answer together."""
    output_tokens_max: int | None
    status: ModelStatus
    version: int
    """Grows with every change of this row."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


async def insert_model(connection: AsyncConnection, model: Model) -> None:
    """Store a new model."""
    await connection.execute(insert(MODELS).values(asdict(model)))


async def replace_model(connection: AsyncConnection, model: Model) -> None:
    """Store every field of a model that exists."""
    await connection.execute(update(MODELS).where(MODELS.c.id == model.id).values(asdict(model)))


async def find_model(connection: AsyncConnection, model_id: UUID) -> Model | None:
    """The model, unless there is none or it was deleted."""
    query = select(MODELS).where(MODELS.c.id == model_id, MODELS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return Model(**row) if row else None


async def find_model_by_name(connection: AsyncConnection, name: str) -> Model | None:
    """The model of that public name, unless there is none or it was deleted."""
    query = select(MODELS).where(MODELS.c.name == name, MODELS.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return Model(**row) if row else None


async def list_models(connection: AsyncConnection, *, name: str | None, after: UUID | None, limit: int) -> list[Model]:
    """Models that were not deleted, newest first, after an id."""
    query = select(MODELS).where(MODELS.c.deleted_at.is_(None)).order_by(MODELS.c.id.desc()).limit(limit)
    if name is not None:
        query = query.where(MODELS.c.name == name)
    if after is not None:
        query = query.where(MODELS.c.id < after)
    return [Model(**row) for row in (await connection.execute(query)).mappings()]
