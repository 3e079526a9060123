"""Route policies in PostgreSQL: one of each model."""

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.routes import Strategy
from ias.registry.store.tables import MODELS, ROUTE_POLICIES


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """How requests for a model are spread, tried again and timed: `contracts.routes.RoutePolicy` says what each field means."""

    model_id: UUID
    strategy: Strategy
    is_sticky: bool
    canary_percent: int
    attempts_max: int
    first_byte_timeout_s: float | None
    total_timeout_s: float | None
    queue_timeout_s: float | None
    version: int
    """Grows with every change of this row."""
    updated_at: datetime


async def insert_route_policy(connection: AsyncConnection, policy: RoutePolicy) -> None:
    """Store the policy of a new model."""
    await connection.execute(insert(ROUTE_POLICIES).values(asdict(policy)))


async def replace_route_policy(connection: AsyncConnection, policy: RoutePolicy) -> None:
    """Store every field of a policy that exists."""
    await connection.execute(
        update(ROUTE_POLICIES).where(ROUTE_POLICIES.c.model_id == policy.model_id).values(asdict(policy))
    )


async def find_route_policy(connection: AsyncConnection, model_id: UUID) -> RoutePolicy | None:
    """The policy of a model, unless there is no such model or it was deleted."""
    query = (
        select(ROUTE_POLICIES)
        .join(MODELS, MODELS.c.id == ROUTE_POLICIES.c.model_id)
        .where(ROUTE_POLICIES.c.model_id == model_id, MODELS.c.deleted_at.is_(None))
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return RoutePolicy(**row) if row else None
