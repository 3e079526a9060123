"""Models in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.routes import Capability
from ias.registry.store.tables import MODELS

ModelStatus = Literal["enabled", "disabled", "deprecated"]
"""Clients are served by a deprecated model as by an enabled one, and told to leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that clients may ask for by its name."""

    id: UUID
    name: str
    context_length: int
    """Tokens of prompt and answer together."""
    output_tokens_max: int | None
    aliases: tuple[str, ...]
    """Other names that clients may ask for. No two models share a name or alias."""
    capabilities: tuple[Capability, ...]
    """Empty: anything may be tried."""
    org_ids: tuple[UUID, ...] | None
    """The orgs that may see and use it; None is all."""
    status: ModelStatus
    deprecated_at: datetime | None
    """Since when it is deprecated; None while it is not."""
    sunset_at: datetime | None
    """From then on it is refused."""
    replacement: str | None
    """Public name of the model to use instead."""
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


async def find_model_by_any_name(connection: AsyncConnection, names: Sequence[str]) -> Model | None:
    """A model that has one of the names, or one of them as an alias, unless there is none or it was deleted."""
    query = select(MODELS).where(
        or_(MODELS.c.name.in_(names), MODELS.c.aliases.overlap(list(names))), MODELS.c.deleted_at.is_(None)
    )
    row = (await connection.execute(query.order_by(MODELS.c.id).limit(1))).mappings().one_or_none()
    return Model(**row) if row else None


async def find_replaced_model(connection: AsyncConnection, name: str) -> Model | None:
    """A model that names this one as its replacement, unless there is none."""
    query = select(MODELS).where(MODELS.c.replacement == name, MODELS.c.deleted_at.is_(None))
    row = (await connection.execute(query.order_by(MODELS.c.id).limit(1))).mappings().one_or_none()
    return Model(**row) if row else None


async def list_models(
    connection: AsyncConnection,
    *,
    seen_by: frozenset[UUID] | None,
    name: str | None,
    after: UUID | None,
    limit: int,
) -> list[Model]:
    """Models that were not deleted, newest first, after an id; those alone that one of the orgs may see, None for all."""
    query = select(MODELS).where(MODELS.c.deleted_at.is_(None)).order_by(MODELS.c.id.desc()).limit(limit)
    if seen_by is not None:
        query = query.where(or_(MODELS.c.org_ids.is_(None), MODELS.c.org_ids.overlap(list(seen_by))))
    if name is not None:
        query = query.where(MODELS.c.name == name)
    if after is not None:
        query = query.where(MODELS.c.id < after)
    return [Model(**row) for row in (await connection.execute(query)).mappings()]
