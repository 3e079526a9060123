"""The audit log: entries in chains, one chain for each org and one for the platform."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.audit_chain import FIRST_HASH
from ias.identity.store.tables import audit_chains, audit_log, orgs
from ias.kit.partitions import uuid_floor


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of `audit_log`."""

    id: UUID
    chain_id: UUID
    org_id: UUID | None
    sequence: int
    occurred_at: datetime
    service: str
    actor_kind: str
    actor_id: str | None
    action: str
    target_kind: str
    target_id: str
    outcome: str
    reason: str | None
    count: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source_ip: str | None
    user_agent: str | None
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; None: whichever. `start` is within, `end` is not; both to the millisecond."""

    service: str | None = None
    actor_kind: str | None = None
    actor_id: str | None = None
    action: str | None = None
    target_kind: str | None = None
    target_id: str | None = None
    outcome: str | None = None
    reason: str | None = None
    request_id: str | None = None
    source_ip: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where a chain ends."""

    sequence: int
    hash: str


async def lock_chain(connection: AsyncConnection, chain_id: UUID) -> ChainEnd:
    """The end of a chain, begun if absent. Whoever else wants to append waits for this transaction."""
    query = select(audit_chains.c.sequence, audit_chains.c.hash).where(audit_chains.c.id == chain_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        fresh = insert(audit_chains).values(id=chain_id, sequence=0, hash=FIRST_HASH)
        await connection.execute(fresh.on_conflict_do_nothing())
        row = (await connection.execute(query)).one()
    return ChainEnd(row.sequence, row.hash)


async def find_chain_end(connection: AsyncConnection, chain_id: UUID) -> ChainEnd | None:
    """The end of a chain as it is committed."""
    query = select(audit_chains.c.sequence, audit_chains.c.hash).where(audit_chains.c.id == chain_id)
    row = (await connection.execute(query)).one_or_none()
    return ChainEnd(row.sequence, row.hash) if row else None


async def append_entries(connection: AsyncConnection, chain_id: UUID, entries: Sequence[dict[str, Any]]) -> None:
    """Add entries at the end of their locked chain, which then ends with the last of them."""
    await connection.execute(plain_insert(audit_log), entries)
    statement = update(audit_chains).where(audit_chains.c.id == chain_id)
    await connection.execute(statement.values(sequence=entries[-1]["sequence"], hash=entries[-1]["hash"]))


async def list_known_ids(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids that the log has an entry of."""
    return set((await connection.execute(select(audit_log.c.id).where(audit_log.c.id.in_(ids)))).scalars())


async def list_existing_org_ids(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids that are orgs', or were once and have a chain."""
    chains = select(audit_chains.c.id).where(audit_chains.c.id.in_(ids))
    return set((await connection.execute(select(orgs.c.id).where(orgs.c.id.in_(ids)).union(chains))).scalars())


async def list_entries(
    connection: AsyncConnection, chain_id: UUID, wanted: AuditFilter, *, after: UUID | None, limit: int
) -> list[AuditEntry]:
    """Entries of a chain, newest first."""
    query = _matching(chain_id, wanted).order_by(audit_log.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(audit_log.c.id < after)
    return [AuditEntry(**row) for row in (await connection.execute(query)).mappings()]


async def list_chain(
    connection: AsyncConnection, chain_id: UUID, wanted: AuditFilter, *, after: int, until: int, limit: int
) -> list[AuditEntry]:
    """Entries of a chain in its own order, from behind one sequence number up to another."""
    query = _matching(chain_id, wanted).where(audit_log.c.sequence > after, audit_log.c.sequence <= until)
    rows = await connection.execute(query.order_by(audit_log.c.sequence).limit(limit))
    return [AuditEntry(**row) for row in rows.mappings()]


def _matching(chain_id: UUID, wanted: AuditFilter) -> Select[Any]:
    query = select(audit_log).where(audit_log.c.chain_id == chain_id)
    for name in AuditFilter.__dataclass_fields__.keys() - {"start", "end"}:
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(audit_log.c[name] == value)
    if wanted.start is not None:
        query = query.where(audit_log.c.id >= uuid_floor(wanted.start))
    if wanted.end is not None:
        query = query.where(audit_log.c.id < uuid_floor(wanted.end))
    return query
