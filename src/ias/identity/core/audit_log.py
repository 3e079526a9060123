"""The audit log: what was changed, by whom and through which request, in the transaction of the change itself.

Each org has a chain of its own, and so has the platform. An entry's hash covers the hash before it, so that nothing in the
middle can be changed, removed or inserted without every later hash telling. Appending locks the chain until the commit:
do it last in a transaction, and once.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.store import audit_log as store
from ias.identity.store import orgs as org_store
from ias.identity.store.audit_log import AuditEntry
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import NotFoundError
from ias.kit.tokens import Claims

PLATFORM_CHAIN = UUID(int=0)
FIRST_HASH = "0" * 64
"""What the first entry of a chain has for `previous_hash`."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Who did something, and through which request."""

    actor_kind: str
    """`user`, `service` or `system`."""
    actor_id: str | None
    request_id: str | None = None
    source_ip: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that something came by."""

    request_id: str
    source_ip: str | None
    user_agent: str | None

    def by(self, actor: Claims) -> Cause:
        """The cause, when the actor of a verified token asks."""
        return Cause(actor.kind, actor.sub, self.request_id, self.source_ip)

    def by_user(self, user_id: UUID) -> Cause:
        """The cause, when somebody who is just signing in asks."""
        return Cause("user", str(user_id), self.request_id, self.source_ip)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was done. `before` and `after` hold JSON values and never a secret."""

    action: str
    """`noun.verb`, e.g. `api_key.revoke`."""
    target_id: UUID
    org_id: UUID | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


async def append(connection: AsyncConnection, cause: Cause, *changes: Change) -> None:
    """Write changes into their chains; the platform's first, so that two transactions never wait for each other."""
    for change in sorted(changes, key=lambda change: change.org_id or PLATFORM_CHAIN):
        chain_id = change.org_id or PLATFORM_CHAIN
        end = await store.lock_chain(connection, chain_id, FIRST_HASH)
        entry = {
            "id": uuid7(),
            "chain_id": chain_id,
            "org_id": change.org_id,
            "sequence": end.sequence + 1,
            "occurred_at": datetime.now(UTC),
            "actor_kind": cause.actor_kind,
            "actor_id": cause.actor_id,
            "action": change.action,
            "target_kind": change.action.partition(".")[0],
            "target_id": str(change.target_id),
            "before": change.before,
            "after": change.after,
            "request_id": cause.request_id,
            "source_ip": cause.source_ip,
            "previous_hash": end.hash,
        }
        await store.append_entry(connection, {**entry, "hash": hash_entry(entry)})


def hash_entry(entry: dict[str, Any]) -> str:
    """SHA-256 in hexadecimal over the entry as JSON.

    All fields but `hash`, keys sorted, no spaces, UTF-8, times in RFC 3339 with microseconds.
    """
    fields = {name: _plain(value) for name, value in entry.items() if name != "hash"}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value


class AuditLog:
    """Reading the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(self, access: Access, org_id: UUID, *, after: UUID | None, limit: int) -> list[AuditEntry]:
        """Entries of an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            if await org_store.find_org(connection, org_id) is None:
                raise NotFoundError
            return await store.list_entries(connection, scope, after=after, limit=limit)
