"""Orgs: the tenants. Each has a default project from the start, and at least one owner."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import members as member_store
from ias.identity.store import orgs as store
from ias.identity.store import projects as project_store
from ias.identity.store.orgs import Org
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import NotFoundError

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """What may be changed of an org or a project: the fields named in `given` take the values here."""

    given: frozenset[str]
    name: str | None = None
    status: str | None = None
    models: list[str] | None = None

    def against(self, now: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields that differ from a row: as they are, and as they shall be."""
        wanted = {name: getattr(self, name) for name in self.given}
        changed = {name: value for name, value in wanted.items() if getattr(now, name) != value}
        return {name: getattr(now, name) for name in changed}, changed


class Orgs:
    """Creating, reading and changing orgs."""

    def __init__(self, database: Database, records: RedisRecords) -> None:
        self._database = database
        self._records = records

    async def create(self, access: Access, name: str, models: list[str] | None, origin: Origin) -> tuple[Org, bool]:
        """A new org with its default project, owned by the caller; and whether it is in force at the gateways.

        Raises:
            ForbiddenError: the caller does not administer the platform.
        """
        actor = access.on_platform()
        now = datetime.now(UTC)
        org_id, project_id, owner_id = uuid7(), uuid7(), UUID(actor.sub)
        times = {"created_at": now, "updated_at": now}
        async with self._database.transaction() as connection:
            org = await store.insert_org(connection, {"id": org_id, "name": name, "models": models, **times})
            project = {"id": project_id, "org_id": org_id, "name": DEFAULT_PROJECT, "is_default": True}
            await project_store.insert_project(connection, {**project, **times})
            owner = {"id": uuid7(), "org_id": org_id, "user_id": owner_id, "role": Role.OWNER}
            await member_store.insert_member(connection, {**owner, **times})
            await append(
                connection,
                origin.by(actor),
                Change("org.create", org_id, org_id, after={"name": name, "models": models}),
                Change("project.create", project_id, org_id, after={"name": DEFAULT_PROJECT, "models": None}),
                Change("member.create", owner_id, org_id, after={"role": Role.OWNER}),
            )
        return org, await self._records.push(org=org_id, project=project_id)

    async def get(self, access: Access, org_id: UUID) -> Org:
        """The org. Raises `NotFoundError` also when the caller has nothing to do with it."""
        access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await store.find_org(connection, org_id)
        if org is None:
            raise NotFoundError
        return org

    async def list_orgs(self, access: Access, *, after: UUID | None, limit: int) -> list[Org]:
        """The orgs that the caller may read, newest first."""
        async with self._database.transaction() as connection:
            return await store.list_orgs(connection, access.org_ids, after=after, limit=limit)

    async def update(self, access: Access, org_id: UUID, changes: TenantChanges, origin: Origin) -> tuple[Org, bool]:
        """The org after the changes; and whether they are in force at the gateways. Raises as `get` does."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await store.find_org(connection, org_id, lock=True)
            if org is None:
                raise NotFoundError
            before, after = changes.against(org)
            if not after:
                return org, org.pushed_version >= org.version
            org = await store.update_org(connection, org_id, after)
            await append(connection, origin.by(scope.actor), Change("org.update", org_id, org_id, before, after))
        return org, await self._records.push(org=org_id)
