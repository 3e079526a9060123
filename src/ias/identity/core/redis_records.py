"""Telling Redis, and so every gateway, what keys, orgs and projects are now.

A change is pushed right after its commit. What could not be pushed then (Redis away, this process killed) is found by its
version and pushed by `workers/redis_records.py`. A Redis that was restarted or emptied is told everything again: it may have
come back with an older copy of its data, in which a revoked key still works. An older record never replaces a newer one.
"""

import secrets
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord
from ias.identity.store import redis_records as store
from ias.identity.store.redis_records import RedisRecord
from ias.kit.database import Database
from ias.kit.redis_documents import RedisDocuments
from ias.kit.writes import after_commit

log = structlog.get_logger("ias.identity.redis_records")

IN_FORCE_HEADER = "x-ias-in-force"
"""Of an answer to a change: `true` when every gateway has been told."""
COMPLETE_MARKER = "ias:identity:complete"
"""Holds the run id of the Redis server that was last told everything."""
_RESTORING = "ias:identity:restoring:"
_RESTORING_EXPIRES_S = 3600
_BATCH = 500

AWAY = (RedisError, SQLAlchemyError, OSError)
"""What is raised when Redis or PostgreSQL is away."""


class RedisRecords:
    """Pushes records. All methods may be called at the same time, by any number of processes."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis
        self._documents = RedisDocuments(redis)

    async def push(self, **ids: UUID | Sequence[UUID]) -> bool:
        """Tell Redis of rows that were changed, by kind, once that is committed: `push(org=org_id, api_key=[...])`.

        False when Redis is not told yet. Within a write it never is: the commit says so later, by `IN_FORCE_HEADER`.
        """
        headers = await after_commit(lambda: self._push(**ids))
        return headers is not None and headers[IN_FORCE_HEADER] == "true"

    async def _push(self, **ids: UUID | Sequence[UUID]) -> dict[str, str]:
        changed = {kind: [given] if isinstance(given, UUID) else given for kind, given in ids.items()}
        try:
            if any(changed.values()):
                await self._put(await self._read(changed))
        except AWAY as error:
            log.warning("a change is not in force yet", kinds=list(ids), error=type(error).__name__)
            return {IN_FORCE_HEADER: "false"}
        return {IN_FORCE_HEADER: "true"}

    async def _read(self, changed: Mapping[str, Sequence[UUID]]) -> list[RedisRecord]:
        async with self._database.transaction() as connection:
            return [
                record
                for kind, row_ids in changed.items()
                if row_ids
                for record in await store.list_records(connection, kind, row_ids)
            ]

    async def push_unpushed(self) -> int:
        """Tell Redis what it has not been told; how many records that were. Raises one of `AWAY`."""
        pushed = 0
        while True:
            async with self._database.transaction() as connection:
                records = await store.list_unpushed(connection, limit=_BATCH)
            if not records:
                return pushed
            await self._put(records)
            pushed += len(records)

    async def restore_if_lost(self) -> bool:
        """Tell Redis everything if it is not the server, with the data, that was told last. Raises one of `AWAY`."""
        run_id = str((await self._redis.info("server")).get("run_id", "unknown"))
        if await self._redis.get(COMPLETE_MARKER) == run_id.encode():
            return False
        # Still there at the end: nothing was lost while we wrote.
        witness = _RESTORING + secrets.token_hex(8)
        await self._redis.set(witness, run_id, ex=_RESTORING_EXPIRES_S)
        pushed = 0
        for kind in store.KINDS:
            pushed += await self._push_all(kind)
        try:
            await self._redis.rename(witness, COMPLETE_MARKER)
        except ResponseError:
            log.warning("Redis was emptied while it was told everything")
            return False
        await self._redis.persist(COMPLETE_MARKER)
        log.info("Redis was told everything", records=pushed)
        return True

    async def find_by_digest(self, digest: str) -> tuple[KeyRecord, TenantRecord, TenantRecord] | None:
        """The record of a key with those of its org and its project, which Redis is told as well."""
        async with self._database.transaction() as connection:
            key = await store.find_key_record(connection, digest)
            if key is None:
                return None
            org = await store.get_tenant_record(connection, "org", UUID(key.org_id))
            project = await store.get_tenant_record(connection, "project", UUID(key.project_id))
        documents = {
            redis_keys.org(org.id): org,
            redis_keys.project(project.id): project,
            redis_keys.api_key(digest): key,
        }
        try:
            await self._documents.put_all(documents)
        except RedisError as error:
            log.warning("Redis could not be told of a key that was asked for", error=type(error).__name__)
        return key, org, project

    async def forget(self, keys: Sequence[str]) -> None:
        """Remove documents of rows that are gone, in order. When Redis is away they stay, and say nothing that is wrong."""
        try:
            for start in range(0, len(keys), _BATCH):
                await self._redis.unlink(*keys[start : start + _BATCH])
        except RedisError as error:
            log.warning("documents of purged rows stay in Redis", error=type(error).__name__)

    async def _push_all(self, kind: str) -> int:
        pushed, after = 0, None
        while True:
            async with self._database.transaction() as connection:
                records = await store.list_all_records(connection, kind, after=after, limit=_BATCH)
            if not records:
                return pushed
            await self._documents.put_all({record.key: record.record for record in records})
            pushed, after = pushed + len(records), records[-1].id

    async def _put(self, records: list[RedisRecord]) -> None:
        await self._documents.put_all({record.key: record.record for record in records})
        async with self._database.transaction() as connection:
            await store.mark_pushed(connection, records)
