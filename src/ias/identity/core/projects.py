"""Projects: where an org's keys, limits and usage live."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.org_rules import check_not_deleted
from ias.identity.core.orgs import TenantChanges
from ias.identity.core.redis_records import RedisRecords
from ias.identity.store import orgs as org_store
from ias.identity.store import projects as store
from ias.identity.store.projects import Project
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, NotFoundError
from ias.kit.writes import check_version


async def get_scope(connection: AsyncConnection, access: Access, project_id: UUID) -> OrgScope:
    """The scope that the caller has in a project.

    Raises:
        NotFoundError: there is no such project, or it belongs to an org the caller has nothing to do with.
        ForbiddenError: the caller belongs to the org, but lacks the permission.
    """
    org_id = await store.find_org_id(connection, project_id)
    if org_id is None:
        raise NotFoundError
    return access.in_project(str(org_id), str(project_id))


async def get_project(
    connection: AsyncConnection, access: Access, project_id: UUID, *, lock: bool = False
) -> tuple[OrgScope, Project]:
    """A project with the caller's scope in it. Raises as `get_scope` does."""
    scope = await get_scope(connection, access, project_id)
    project = await store.find_project(connection, scope, project_id, lock=lock)
    if project is None:
        raise NotFoundError
    return scope, project


class Projects:
    """Creating, reading, changing, deleting and restoring projects."""

    def __init__(self, database: Database, records: RedisRecords) -> None:
        self._database = database
        self._records = records

    async def create(
        self, access: Access, org_id: UUID, name: str, models: list[str] | None, origin: Origin
    ) -> tuple[Project, bool]:
        """A new project; and whether it is in force at the gateways.

        Raises:
            ConflictError: the org has a project of that name.
        """
        scope = access.in_org(str(org_id))
        now = datetime.now(UTC)
        values = {"id": uuid7(), "org_id": org_id, "name": name, "models": models, "created_at": now, "updated_at": now}
        try:
            async with self._database.transaction() as connection:
                org = await org_store.find_org(connection, org_id)
                if org is None:
                    raise NotFoundError
                check_not_deleted(org.status, "org")
                project = await store.insert_project(connection, values)
                change = Change("project.create", project.id, org_id, after={"name": name, "models": models})
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise _name_taken() from error
        return project, await self._records.push(project=project.id)

    async def get(self, access: Access, project_id: UUID) -> Project:
        """The project. Raises `NotFoundError` also when the caller has nothing to do with its org."""
        async with self._database.transaction() as connection:
            _, project = await get_project(connection, access, project_id)
        return project

    async def list_projects(self, access: Access, org_id: UUID, *, after: UUID | None, limit: int) -> list[Project]:
        """Projects of an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            if await org_store.find_org(connection, org_id) is None:
                raise NotFoundError
            return await store.list_projects(connection, scope, after=after, limit=limit)

    async def update(
        self, access: Access, project_id: UUID, changes: TenantChanges, origin: Origin
    ) -> tuple[Project, bool]:
        """The project after the changes; and whether they are in force at the gateways.

        Raises:
            ConflictError: the org has another project of that name, or the project was deleted.
        """
        try:
            async with self._database.transaction() as connection:
                scope, project = await get_project(connection, access, project_id, lock=True)
                check_not_deleted(project.status, "project")
                check_version(project.version)
                before, after = changes.against(project)
                if not after:
                    return project, project.pushed_version >= project.version
                project = await store.update_project(connection, scope, project_id, after)
                change = Change("project.update", project_id, project.org_id, before, after)
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise _name_taken() from error
        return project, await self._records.push(project=project_id)

    async def delete(self, access: Access, project_id: UUID, origin: Origin) -> bool:
        """Delete a project: its traffic stops, and after the retention it is purged. Deleting a deleted one is no error.

        Whether that is in force at the gateways.

        Raises:
            ConflictError: it is the org's default project.
        """
        async with self._database.transaction() as connection:
            scope, project = await get_project(connection, access, project_id, lock=True)
            check_version(project.version)
            if project.status == "deleted":
                return project.pushed_version >= project.version
            if project.is_default:
                raise ConflictError("An org keeps its default project.", code="default_project")
            deleted = {"status": "deleted", "deleted_at": datetime.now(UTC)}
            await store.update_project(connection, scope, project_id, deleted)
            change = Change(
                "project.delete", project_id, project.org_id, {"status": project.status}, {"status": "deleted"}
            )
            await append(connection, origin.by(scope.actor), change)
        return await self._records.push(project=project_id)

    async def restore(self, access: Access, project_id: UUID, origin: Origin) -> tuple[Project, bool]:
        """The deleted project, active again with all that is in it; and whether that is in force at the gateways."""
        async with self._database.transaction() as connection:
            scope, project = await get_project(connection, access, project_id, lock=True)
            if project.status != "deleted":
                return project, project.pushed_version >= project.version
            restored = {"status": "active", "deleted_at": None}
            project = await store.update_project(connection, scope, project_id, restored)
            change = Change("project.restore", project_id, project.org_id, {"status": "deleted"}, {"status": "active"})
            await append(connection, origin.by(scope.actor), change)
        return project, await self._records.push(project=project_id)


def _name_taken() -> ConflictError:
    return ConflictError("The org has a project of that name already.", code="name_taken")
