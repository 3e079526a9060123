"""The audit log: entries in chains, one chain for each org and one for the platform."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert as plain_insert
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import audit_chains, audit_log
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of `audit_log`."""

    id: UUID
    chain_id: UUID
    org_id: UUID | None
    sequence: int
    occurred_at: datetime
    actor_kind: str
    actor_id: str | None
    action: str
    target_kind: str
    target_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source_ip: str | None
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where a chain ends."""

    sequence: int
    hash: str


async def lock_chain(connection: AsyncConnection, chain_id: UUID, first_hash: str) -> ChainEnd:
    """The end of a chain, begun if absent. Whoever else wants to append waits for this transaction."""
    fresh = insert(audit_chains).values(id=chain_id, sequence=0, hash=first_hash)
    await connection.execute(fresh.on_conflict_do_nothing())
    query = select(audit_chains.c.sequence, audit_chains.c.hash).where(audit_chains.c.id == chain_id).with_for_update()
    row = (await connection.execute(query)).one()
    return ChainEnd(row.sequence, row.hash)


async def append_entry(connection: AsyncConnection, entry: dict[str, Any]) -> None:
    """Add an entry at the end of its locked chain."""
    await connection.execute(plain_insert(audit_log).values(entry))
    statement = update(audit_chains).where(audit_chains.c.id == entry["chain_id"])
    await connection.execute(statement.values(sequence=entry["sequence"], hash=entry["hash"]))


async def list_entries(
    connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int
) -> list[AuditEntry]:
    """Entries of the scope's org, newest first."""
    query = select(audit_log).where(audit_log.c.org_id == UUID(scope.org_id)).order_by(audit_log.c.id.desc())
    if after is not None:
        query = query.where(audit_log.c.id < after)
    return [AuditEntry(**row) for row in (await connection.execute(query.limit(limit))).mappings()]
