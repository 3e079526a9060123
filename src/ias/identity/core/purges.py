"""Purging: what was deleted and not restored within the retention goes for good. The audit log and an org's bare row stay."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from ias.contracts import redis_keys
from ias.identity.core.audit_log import Cause, Change, append
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import purges as store
from ias.kit.database import Database

log = structlog.get_logger("ias.identity.purges")

_BY_PLATFORM = Cause("system", None)


class Purges:
    """Removes expired orgs and projects, one to a transaction. Any number of processes may do so at the same time."""

    def __init__(self, database: Database, records: RedisRecords, *, retention: timedelta) -> None:
        self._database = database
        self._records = records
        self._retention = retention

    async def purge_expired(self) -> int:
        """Purge everything whose time has come; how much that was."""
        deleted_before = datetime.now(UTC) - self._retention
        purged = 0
        while await self._purge_org(deleted_before) or await self._purge_project(deleted_before):
            purged += 1
        return purged

    async def _purge_org(self, deleted_before: datetime) -> bool:
        async with self._database.transaction() as connection:
            org_id = await store.find_expired_org(connection, deleted_before)
            if org_id is None:
                return False
            project_ids = await store.list_project_ids(connection, org_id)
            digests = await store.delete_projects(connection, project_ids)
            await store.empty_org(connection, org_id)
            await append(connection, _BY_PLATFORM, Change("org.purge", org_id, org_id))
        await self._forget(digests, project_ids)
        await self._records.push(org=org_id)
        log.info("an org was purged", org_id=str(org_id), keys=len(digests))
        return True

    async def _purge_project(self, deleted_before: datetime) -> bool:
        async with self._database.transaction() as connection:
            found = await store.find_expired_project(connection, deleted_before)
            if found is None:
                return False
            org_id, project_id = found
            digests = await store.delete_projects(connection, [project_id])
            await append(connection, _BY_PLATFORM, Change("project.purge", project_id, org_id))
        await self._forget(digests, [project_id])
        log.info("a project was purged", org_id=str(org_id), project_id=str(project_id), keys=len(digests))
        return True

    async def _forget(self, digests: list[str], project_ids: list[UUID]) -> None:
        """Keys first: what stays behind when Redis is away is a key whose project is deleted, which no gateway accepts."""
        keys = [redis_keys.api_key(digest) for digest in digests]
        await self._records.forget([*keys, *(redis_keys.project(str(project_id)) for project_id in project_ids)])
