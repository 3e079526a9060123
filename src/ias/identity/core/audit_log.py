"""The audit log: what was changed or refused, by whom and through which request.

Identity's own changes are written in their own transaction; those of other services arrive over the bus; denials are written in
transactions of their own. Each org has a chain, and so has the platform. An entry's hash covers the hash before it, so that
nothing in the middle can be changed, removed or inserted without every later hash telling (`ias.contracts.audit_chain`).
Appending locks the chain until the commit: do it last in a transaction, and once.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.audit_chain import hash_entry
from ias.contracts.events import AuditRecord
from ias.identity.store import audit_log as store
from ias.identity.store import orgs as org_store
from ias.identity.store.audit_log import AuditEntry, AuditFilter
from ias.kit.access import Access
from ias.kit.audit import Cause, Change, Origin, make_records, render_moment
from ias.kit.database import Database
from ias.kit.problems import NotFoundError
from ias.kit.tokens import Claims
from ias.kit.writes import note_records

__all__ = ["PLATFORM_CHAIN", "AuditLog", "Cause", "Change", "Origin", "append", "join"]

PLATFORM_CHAIN = UUID(int=0)


async def append(connection: AsyncConnection, cause: Cause, *changes: Change) -> None:
    """Write changes into their chains, in the transaction of the changes."""
    records = make_records("identity", cause, changes)
    note_records(records)
    await _extend(connection, records)


async def join(connection: AsyncConnection, records: Sequence[AuditRecord]) -> int:
    """Write records into their chains that may be there already; how many were not.

    What is said of an org that never was belongs to the platform: whoever invents ids begins no chain.
    """
    named = {UUID(record.org_id) for record in records if record.org_id}
    orgs = await store.list_existing_org_ids(connection, named) if named else set()
    placed = [
        record if record.org_id is None or UUID(record.org_id) in orgs else msgspec.structs.replace(record, org_id=None)
        for record in records
    ]
    return await _extend(connection, placed, again=True)


async def _extend(connection: AsyncConnection, records: Sequence[AuditRecord], *, again: bool = False) -> int:
    """The platform's chain first and the others in order, so that two transactions never wait for each other."""
    written = 0
    for chain_id, group in groupby(sorted(records, key=_chain_of), key=_chain_of):
        end = await store.lock_chain(connection, chain_id)
        fresh = {record.id: record for record in group}
        if again:  # asked under the lock: whoever wrote them has committed
            known = await store.list_known_ids(connection, {UUID(record_id) for record_id in fresh})
            fresh = {record_id: record for record_id, record in fresh.items() if UUID(record_id) not in known}
        sequence, previous_hash, rows = end.sequence, end.hash, []
        for record in fresh.values():
            sequence += 1
            entry = make_entry(record, chain_id, sequence, previous_hash)
            previous_hash = entry["hash"]
            rows.append(_row(entry))
        if rows:
            await store.append_entries(connection, chain_id, rows)
        written += len(rows)
    return written


def make_entry(record: AuditRecord, chain_id: UUID, sequence: int, previous_hash: str) -> dict[str, Any]:
    """The entry as JSON, with its hash."""
    entry = {
        **msgspec.structs.asdict(record),
        "chain_id": str(chain_id),
        "sequence": sequence,
        "previous_hash": previous_hash,
    }
    return {**entry, "hash": hash_entry(entry)}


def render_entry(row: AuditEntry) -> dict[str, Any]:
    """A row as the JSON that its hash was made of."""
    values = {name: getattr(row, name) for name in AuditEntry.__dataclass_fields__}
    return {
        name: str(value) if isinstance(value, UUID) else render_moment(value) if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    ids = {name: UUID(entry[name]) if entry[name] else None for name in ("id", "chain_id", "org_id")}
    return {**entry, **ids, "occurred_at": datetime.fromisoformat(entry["occurred_at"])}


def _chain_of(record: AuditRecord) -> UUID:
    return UUID(record.org_id) if record.org_id else PLATFORM_CHAIN


class AuditLog:
    """Writing denials, and reading the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, records: Sequence[AuditRecord]) -> int:
        """Write records of denials or of other services, each once however often it comes; how many were new."""
        async with self._database.transaction() as connection:
            return await join(connection, records)

    async def list_entries(
        self, access: Access, org_id: UUID | None, wanted: AuditFilter, *, after: UUID | None, limit: int
    ) -> list[AuditEntry]:
        """Entries of an org, or of the platform, newest first.

        Raises:
            NotFoundError: there is no such org, or the caller has nothing to do with it.
        """
        async with self._database.transaction() as connection:
            chain_id, _ = await get_chain(connection, access, org_id)
            return await store.list_entries(connection, chain_id, wanted, after=after, limit=limit)


async def get_chain(connection: AsyncConnection, access: Access, org_id: UUID | None) -> tuple[UUID, Claims]:
    """The chain of an org, or of the platform (None), and the caller, who may read it. Raises as `list_entries` does."""
    if org_id is None:
        return PLATFORM_CHAIN, access.on_platform()
    scope = access.in_org(str(org_id))
    if await org_store.find_org(connection, org_id) is None:
        raise NotFoundError
    return org_id, scope.actor
