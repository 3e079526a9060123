"""Custom roles: permissions under a name of the org's own, which members hold beside their built-in role.

What is taken away is gone at once: older access tokens of those who lose something are refused. What is added shows in the
next token.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import PLATFORM_PERMISSIONS, Permission, Role
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.grants import as_permissions, require_permissions
from ias.identity.core.key_holders import touch_keys_of
from ias.identity.core.members import lock_org
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import members as member_store
from ias.identity.store import projects as project_store
from ias.identity.store import roles as store
from ias.identity.store import users as user_store
from ias.identity.store.roles import CustomRole, RoleAssignment
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError

ROLES_MAX = 50
"""Of one org: an access token carries those that its user holds."""


class Roles:
    """Creating, reading, changing, deleting and assigning custom roles. One org's changes happen one after the other."""

    def __init__(self, database: Database, records: RedisRecords, revocations: SessionRevocations) -> None:
        self._database = database
        self._records = records
        self._revocations = revocations

    async def create(
        self, access: Access, org_id: UUID, name: str, permissions: Sequence[Permission], origin: Origin
    ) -> CustomRole:
        """A new role.

        Raises:
            ConflictError: the org has one of that name, or as many as it may.
            InvalidError: a permission of the platform, or the name of a built-in role.
            ForbiddenError: a permission that the caller does not hold.
        """
        scope = access.in_org(str(org_id))
        _check(name, permissions)
        now = datetime.now(UTC)
        values = {"id": uuid7(), "org_id": org_id, "name": name, "permissions": sorted(set(permissions))}
        try:
            async with self._database.transaction() as connection:
                await lock_org(connection, org_id)
                await require_permissions(connection, scope, None, permissions)
                if await store.count_roles(connection, scope) >= ROLES_MAX:
                    raise ConflictError(f"An org has {ROLES_MAX} roles of its own at most.", code="too_many_roles")
                role = await store.insert_role(connection, {**values, "created_at": now, "updated_at": now})
                after = {"name": name, "permissions": role.permissions}
                await append(connection, origin.by(scope.actor), Change("role.create", role.id, org_id, after=after))
        except IntegrityError as error:
            raise _name_taken() from error
        return role

    async def get(self, access: Access, org_id: UUID, role_id: UUID) -> CustomRole:
        """The role."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            return await _get(connection, scope, role_id)

    async def list_roles(self, access: Access, org_id: UUID, *, after: UUID | None, limit: int) -> list[CustomRole]:
        """Roles of an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            return await store.list_roles(connection, scope, after=after, limit=limit)

    async def update(
        self,
        access: Access,
        org_id: UUID,
        role_id: UUID,
        *,
        name: str | None,
        permissions: Sequence[Permission] | None,
        origin: Origin,
    ) -> CustomRole:
        """The role after the changes (None changes nothing). Raises as `create` does, also for what the role permitted before."""
        scope = access.in_org(str(org_id))
        losing: list[UUID] = []
        try:
            async with self._database.transaction() as connection:
                await lock_org(connection, org_id)
                role = await _get(connection, scope, role_id, lock=True)
                wanted = {"name": name or role.name, "permissions": role.permissions}
                if permissions is not None:
                    wanted["permissions"] = sorted(set(permissions))
                after = {field: value for field, value in wanted.items() if getattr(role, field) != value}
                if not after:
                    return role
                _check(name or role.name, permissions or ())
                had, has = as_permissions(role.permissions), as_permissions(wanted["permissions"])
                await require_permissions(connection, scope, None, had | has)
                before = {field: getattr(role, field) for field in after}
                role = await store.update_role(connection, scope, role_id, after)
                holders = await store.list_holders(connection, role_id)
                if had - has:
                    losing = holders
                    await _raise_token_versions(connection, losing)
                key_ids = await touch_keys_of(connection, scope, holders, had, has)
                await append(connection, origin.by(scope.actor), Change("role.update", role_id, org_id, before, after))
        except IntegrityError as error:
            raise _name_taken() from error
        await self._revocations.push(user_ids=losing)
        await self._records.push(api_key=key_ids)
        return role

    async def delete(self, access: Access, org_id: UUID, role_id: UUID, origin: Origin) -> None:
        """Remove a role.

        Raises:
            ConflictError: somebody holds it.
            ForbiddenError: it holds something that the caller does not.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            role = await _get(connection, scope, role_id, lock=True)
            await require_permissions(connection, scope, None, as_permissions(role.permissions))
            if await store.list_holders(connection, role_id):
                raise ConflictError("Somebody holds the role; take it from them first.", code="role_in_use")
            await store.delete_role(connection, scope, role_id)
            before = {"name": role.name, "permissions": role.permissions}
            await append(connection, origin.by(scope.actor), Change("role.delete", role_id, org_id, before))

    async def assign(
        self,
        access: Access,
        org_id: UUID,
        role_id: UUID,
        user_id: UUID,
        *,
        project_id: UUID | None,
        origin: Origin,
    ) -> RoleAssignment:
        """Give a member a role, in one project or (None) in the whole org.

        Raises:
            InvalidError: no such role, member or project in the org.
            ConflictError: they hold it there already.
            ForbiddenError: the role holds something that the caller does not.
        """
        scope = access.in_org(str(org_id))
        try:
            async with self._database.transaction() as connection:
                await lock_org(connection, org_id)
                role = await store.find_role(connection, scope, role_id)
                if role is None:
                    raise _absent("role_id", "role")
                if await member_store.find_member(connection, scope, user_id) is None:
                    raise _absent("user_id", "member")
                if project_id and await project_store.find_project(connection, scope, project_id) is None:
                    raise _absent("project_id", "project")
                await require_permissions(connection, scope, project_id, as_permissions(role.permissions))
                values = {"id": uuid7(), "org_id": org_id, "role_id": role_id, "user_id": user_id}
                made = await store.insert_assignment(
                    connection, {**values, "project_id": project_id, "created_at": datetime.now(UTC)}
                )
                key_ids = await touch_keys_of(connection, scope, [user_id], (), as_permissions(role.permissions))
                change = Change("role_assignment.create", made.id, org_id, after=_describe(role, made))
                await append(connection, origin.by(scope.actor), change)
        except IntegrityError as error:
            raise ConflictError("They hold the role there already.", code="already_assigned") from error
        await self._records.push(api_key=key_ids)
        return made

    async def list_assignments(
        self, access: Access, org_id: UUID, *, after: UUID | None, limit: int
    ) -> list[RoleAssignment]:
        """Who holds which custom role where, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            return await store.list_assignments(connection, scope, after=after, limit=limit)

    async def unassign(self, access: Access, org_id: UUID, assignment_id: UUID, origin: Origin) -> None:
        """Take a role from a member.

        Raises:
            ForbiddenError: the role holds something that the caller does not.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            assignment = await store.find_assignment(connection, scope, assignment_id)
            if assignment is None:
                raise NotFoundError
            role = await _get(connection, scope, assignment.role_id)
            await require_permissions(connection, scope, assignment.project_id, as_permissions(role.permissions))
            await store.delete_assignment(connection, scope, assignment_id)
            await _raise_token_versions(connection, [assignment.user_id])
            had = as_permissions(role.permissions)
            key_ids = await touch_keys_of(connection, scope, [assignment.user_id], had, ())
            change = Change("role_assignment.delete", assignment_id, org_id, _describe(role, assignment))
            await append(connection, origin.by(scope.actor), change)
        await self._revocations.push(user_ids=[assignment.user_id])
        await self._records.push(api_key=key_ids)


async def _get(connection: AsyncConnection, scope: OrgScope, role_id: UUID, *, lock: bool = False) -> CustomRole:
    role = await store.find_role(connection, scope, role_id, lock=lock)
    if role is None:
        raise NotFoundError
    return role


async def _raise_token_versions(connection: AsyncConnection, user_ids: Sequence[UUID]) -> None:
    for user_id in sorted(user_ids):
        await user_store.raise_token_version(connection, user_id)


def _check(name: str, permissions: Sequence[Permission]) -> None:
    if name in set(Role):
        raise _invalid("name", f"`{name}` is a built-in role.")
    of_platform = sorted(PLATFORM_PERMISSIONS.intersection(permissions))
    if of_platform:
        raise _invalid("permissions", f"`{of_platform[0]}` is the platform's and no role of an org can hold it.")


def _describe(role: CustomRole, assignment: RoleAssignment) -> dict[str, str | None]:
    project_id = str(assignment.project_id) if assignment.project_id else None
    return {"role": role.name, "user_id": str(assignment.user_id), "project_id": project_id}


def _absent(field: str, what: str) -> InvalidError:
    return _invalid(field, f"There is no such {what} in the org.")


def _invalid(field: str, detail: str) -> InvalidError:
    return InvalidError(detail, errors=[FieldError(pointer=f"/{field}", detail=detail)])


def _name_taken() -> ConflictError:
    return ConflictError("The org has a role of that name already.", code="name_taken")
