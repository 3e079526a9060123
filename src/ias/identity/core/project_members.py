"""Project members: members of an org who hold one more built-in role in a single project."""

from uuid import UUID

from sqlalchemy.exc import IntegrityError

from ias.contracts.permissions import ROLE_PERMISSIONS, Role
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.grants import require_permissions
from ias.identity.core.key_holders import touch_keys_of
from ias.identity.core.projects import get_project, get_scope
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import project_roles as store
from ias.identity.store import users as user_store
from ias.identity.store.project_roles import ProjectMember
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import FieldError, InvalidError, NotFoundError


class ProjectMembers:
    """Giving, reading and taking roles in projects. Nobody hands out, or takes, what they do not hold there themselves."""

    def __init__(self, database: Database, records: RedisRecords, revocations: SessionRevocations) -> None:
        self._database = database
        self._records = records
        self._revocations = revocations

    async def list_members(
        self, access: Access, project_id: UUID, *, after: UUID | None, limit: int
    ) -> list[ProjectMember]:
        """Who holds a role in a project, newest first. Members of the org whose role holds everywhere are not among them."""
        async with self._database.transaction() as connection:
            scope = await get_scope(connection, access, project_id)
            return await store.list_project_members(connection, scope, project_id, after=after, limit=limit)

    async def put(self, access: Access, project_id: UUID, user_id: UUID, role: Role, origin: Origin) -> ProjectMember:
        """Let a member of the org hold a role in the project, in place of the one they held there.

        Raises:
            InvalidError: they are no member of the org.
            ForbiddenError: the role, or the one they held, holds something that the caller does not.
        """
        try:
            async with self._database.transaction() as connection:
                scope, project = await get_project(connection, access, project_id, lock=True)
                before = await store.find_project_member(connection, scope, project_id, user_id)
                held = ROLE_PERMISSIONS[before.role] if before else frozenset()
                await require_permissions(connection, scope, project_id, ROLE_PERMISSIONS[role] | held)
                if before and before.role is role:
                    return before
                await store.put_role(connection, scope, project_id, user_id, role)
                if before:
                    await user_store.raise_token_version(connection, user_id)
                key_ids = await touch_keys_of(connection, scope, [user_id], held, ROLE_PERMISSIONS[role])
                change = Change(
                    "project_member.update" if before else "project_member.create",
                    user_id,
                    project.org_id,
                    {"project_id": str(project_id), "role": before.role} if before else None,
                    {"project_id": str(project_id), "role": role},
                )
                await append(connection, origin.by(scope.actor), change)
                after = await store.find_project_member(connection, scope, project_id, user_id)
        except IntegrityError as error:
            detail = "There is no such member in the org."
            raise InvalidError(detail, errors=[FieldError(pointer="user_id", detail=detail)]) from error
        if after is None:
            raise NotFoundError
        if before:
            await self._revocations.push(user_ids=[user_id])
        await self._records.push(api_key=key_ids)
        return after

    async def remove(self, access: Access, project_id: UUID, user_id: UUID, origin: Origin) -> None:
        """Take the role that a member holds in the project.

        Raises:
            NotFoundError: they hold none there.
            ForbiddenError: it holds something that the caller does not.
        """
        async with self._database.transaction() as connection:
            scope, project = await get_project(connection, access, project_id, lock=True)
            member = await store.find_project_member(connection, scope, project_id, user_id)
            if member is None:
                raise NotFoundError
            await require_permissions(connection, scope, project_id, ROLE_PERMISSIONS[member.role])
            await store.delete_role(connection, scope, project_id, user_id)
            await user_store.raise_token_version(connection, user_id)
            key_ids = await touch_keys_of(connection, scope, [user_id], ROLE_PERMISSIONS[member.role], ())
            before = {"project_id": str(project_id), "role": member.role}
            change = Change("project_member.delete", user_id, project.org_id, before)
            await append(connection, origin.by(scope.actor), change)
        await self._revocations.push(user_ids=[user_id])
        await self._records.push(api_key=key_ids)
