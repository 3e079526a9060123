"""How anything changes here: in one transaction with its record and the next version of the route table, then pushed.

The transaction locks the route table's version first. So changes have one order, the version that a change got is the first
whose route table shows it, and nothing that was read under the lock can be outdated when it is written.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.kit import audit, outbox
from ias.kit.audit import Cause
from ias.kit.database import Database
from ias.kit.writes import after_commit
from ias.registry.store.changes import ChangeRecord, insert_changes, list_changes
from ias.registry.store.route_table import lock_version, set_version


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change, in which request."""

    cause: Cause


@dataclass(slots=True)
class Change:
    """A change in the making."""

    connection: AsyncConnection
    author: Author
    at: datetime
    route_table_version: int
    records: list[ChangeRecord] = field(default_factory=list)

    def record(self, action: str, target_id: UUID, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Note what was done (`noun.verb`) to a target. `before` and `after` must hold no secrets."""
        self.records.append(
            ChangeRecord(
                id=uuid7(),
                at=self.at,
                actor=self.author.cause.actor_id or "",
                action=action,
                target_kind=action.partition(".")[0],
                target_id=target_id,
                before=before,
                after=after,
                request_id=self.author.cause.request_id or "",
                route_table_version=self.route_table_version,
            )
        )


class Changes:
    """Makes changes and lists those that were made."""

    def __init__(self, database: Database, push_routes: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._push_routes = push_routes

    @asynccontextmanager
    async def make(self, author: Author) -> AsyncIterator[Change]:
        """A change that is made when the block ends, and leaves nothing when it raises; gateways are told after the commit."""
        async with self._database.transaction() as connection:
            version = await lock_version(connection) + 1
            change = Change(connection, author, datetime.now(UTC), version)
            yield change
            if not change.records:
                return
            await set_version(connection, version)
            await insert_changes(connection, change.records)
            told = [audit.Change(one.action, one.target_id, None, one.before, one.after) for one in change.records]
            await outbox.append(connection, "registry", author.cause, *told)
        await after_commit(self._push_routes)

    async def list_changes(self, *, target_id: UUID | None, after: UUID | None, limit: int) -> list[ChangeRecord]:
        """Changes, newest first, after an id; of one target or of all."""
        async with self._database.transaction() as connection:
            return await list_changes(connection, target_id=target_id, after=after, limit=limit)
