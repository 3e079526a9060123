"""How backends' health and circuits changed, in PostgreSQL: the newest transitions of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.backend_states import Circuit, Health
from ias.registry.store.tables import BACKEND_TRANSITIONS, BACKENDS

KEPT_PER_BACKEND = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTransition:
    """Into which state a backend went, when and why."""

    id: UUID
    backend_id: UUID
    at: datetime
    health: Health
    circuit: Circuit
    reason: str


async def insert_transitions(connection: AsyncConnection, transitions: Sequence[BackendTransition]) -> None:
    """Append transitions of backends that there are, and forget the oldest of theirs beyond `KEPT_PER_BACKEND`."""
    touched = {one.backend_id for one in transitions}
    known = set((await connection.execute(select(BACKENDS.c.id).where(BACKENDS.c.id.in_(touched)))).scalars())
    rows = [asdict(one) for one in transitions if one.backend_id in known]
    if not rows:
        return
    await connection.execute(insert(BACKEND_TRANSITIONS), rows)
    rank = func.row_number().over(
        partition_by=BACKEND_TRANSITIONS.c.backend_id, order_by=BACKEND_TRANSITIONS.c.id.desc()
    )
    ranked = select(BACKEND_TRANSITIONS.c.id, rank.label("rank")).where(BACKEND_TRANSITIONS.c.backend_id.in_(known))
    old = ranked.subquery()
    await connection.execute(
        delete(BACKEND_TRANSITIONS).where(
            BACKEND_TRANSITIONS.c.id.in_(select(old.c.id).where(old.c.rank > KEPT_PER_BACKEND))
        )
    )


async def list_transitions(connection: AsyncConnection, backend_id: UUID) -> list[BackendTransition]:
    """A backend's transitions, newest first."""
    query = (
        select(BACKEND_TRANSITIONS)
        .where(BACKEND_TRANSITIONS.c.backend_id == backend_id)
        .order_by(BACKEND_TRANSITIONS.c.id.desc())
        .limit(KEPT_PER_BACKEND)
    )
    return [BackendTransition(**row) for row in (await connection.execute(query)).mappings()]
