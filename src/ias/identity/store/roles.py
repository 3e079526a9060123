"""Custom roles and who holds them, in whole orgs or in single projects."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import role_assignments, roles
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class CustomRole:
    """A row of `roles`."""

    id: UUID
    org_id: UUID
    name: str
    permissions: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """A row of `role_assignments`."""

    id: UUID
    org_id: UUID
    role_id: UUID
    user_id: UUID
    project_id: UUID | None
    created_at: datetime


async def insert_role(connection: AsyncConnection, values: dict[str, Any]) -> CustomRole:
    """A new role. Raises `sqlalchemy.exc.IntegrityError` when the org has one of that name."""
    return CustomRole(**(await connection.execute(insert(roles).values(values).returning(roles))).mappings().one())


async def count_roles(connection: AsyncConnection, scope: OrgScope) -> int:
    """How many roles the scope's org has."""
    query = select(func.count()).where(roles.c.org_id == UUID(scope.org_id))
    return int((await connection.execute(query)).scalar_one())


async def find_role(
    connection: AsyncConnection, scope: OrgScope, role_id: UUID, *, lock: bool = False
) -> CustomRole | None:
    """A role of the scope's org."""
    query = select(roles).where(roles.c.org_id == UUID(scope.org_id), roles.c.id == role_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return CustomRole(**row) if row else None


async def list_roles(
    connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int
) -> list[CustomRole]:
    """Roles of the scope's org, newest first."""
    query = select(roles).where(roles.c.org_id == UUID(scope.org_id)).order_by(roles.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(roles.c.id < after)
    return [CustomRole(**row) for row in (await connection.execute(query)).mappings()]


async def update_role(
    connection: AsyncConnection, scope: OrgScope, role_id: UUID, changes: dict[str, Any]
) -> CustomRole:
    """The role after the change, one version further. Raises `sqlalchemy.exc.IntegrityError` when the name is taken."""
    statement = update(roles).where(roles.c.org_id == UUID(scope.org_id), roles.c.id == role_id)
    statement = statement.values(**changes, version=roles.c.version + 1, updated_at=func.now())
    return CustomRole(**(await connection.execute(statement.returning(roles))).mappings().one())


async def delete_role(connection: AsyncConnection, scope: OrgScope, role_id: UUID) -> None:
    """Remove a role. Raises `sqlalchemy.exc.IntegrityError` when somebody holds it."""
    await connection.execute(delete(roles).where(roles.c.org_id == UUID(scope.org_id), roles.c.id == role_id))


async def list_holders(connection: AsyncConnection, role_id: UUID) -> list[UUID]:
    """The users who hold a role somewhere."""
    query = select(role_assignments.c.user_id).where(role_assignments.c.role_id == role_id).distinct()
    return list((await connection.execute(query)).scalars())


async def insert_assignment(connection: AsyncConnection, values: dict[str, Any]) -> RoleAssignment:
    """A new assignment. Raises `sqlalchemy.exc.IntegrityError` when it is there, or not all in one org."""
    statement = insert(role_assignments).values(values).returning(role_assignments)
    return RoleAssignment(**(await connection.execute(statement)).mappings().one())


async def find_assignment(connection: AsyncConnection, scope: OrgScope, assignment_id: UUID) -> RoleAssignment | None:
    """An assignment in the scope's org, locked."""
    query = select(role_assignments).where(
        role_assignments.c.org_id == UUID(scope.org_id), role_assignments.c.id == assignment_id
    )
    row = (await connection.execute(query.with_for_update())).mappings().one_or_none()
    return RoleAssignment(**row) if row else None


async def list_assignments(
    connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int
) -> list[RoleAssignment]:
    """Assignments in the scope's org, newest first."""
    query = select(role_assignments).where(role_assignments.c.org_id == UUID(scope.org_id))
    query = query.order_by(role_assignments.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(role_assignments.c.id < after)
    return [RoleAssignment(**row) for row in (await connection.execute(query)).mappings()]


async def delete_assignment(connection: AsyncConnection, scope: OrgScope, assignment_id: UUID) -> None:
    """Take a role from a user."""
    await connection.execute(
        delete(role_assignments).where(
            role_assignments.c.org_id == UUID(scope.org_id), role_assignments.c.id == assignment_id
        )
    )
