"""Checkpoints: signed statements of where chains ended."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import audit_chains, audit_checkpoints


async def insert_checkpoint(
    connection: AsyncConnection, chain_id: UUID, sequence: int, signed: str, created_at: datetime
) -> None:
    """Keep a checkpoint, unless there is one of this place already."""
    values = {"chain_id": chain_id, "sequence": sequence, "signed": signed, "created_at": created_at}
    await connection.execute(insert(audit_checkpoints).values(values).on_conflict_do_nothing())


async def list_checkpoints(connection: AsyncConnection, chain_id: UUID, *, until: int, limit: int) -> list[str]:
    """The newest checkpoints of a chain that are not behind a sequence number, oldest first."""
    newest = select(audit_checkpoints.c.sequence, audit_checkpoints.c.signed).where(
        audit_checkpoints.c.chain_id == chain_id, audit_checkpoints.c.sequence <= until
    )
    rows = await connection.execute(newest.order_by(audit_checkpoints.c.sequence.desc()).limit(limit))
    return [row.signed for row in rows][::-1]


async def list_chains_without_checkpoint(connection: AsyncConnection, *, limit: int) -> list[UUID]:
    """Chains that have grown since their last checkpoint."""
    covered = (
        select(func.max(audit_checkpoints.c.sequence))
        .where(audit_checkpoints.c.chain_id == audit_chains.c.id)
        .scalar_subquery()
    )
    query = select(audit_chains.c.id).where(audit_chains.c.sequence > func.coalesce(covered, 0))
    return list((await connection.execute(query.order_by(audit_chains.c.id).limit(limit))).scalars())
