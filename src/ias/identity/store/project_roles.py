"""Roles that members hold in single projects, beside what they hold in the org."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.identity.store.tables import project_roles, users
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class ProjectMember:
    """A row of `project_roles`, with who it is."""

    id: UUID
    org_id: UUID
    project_id: UUID
    user_id: UUID
    email: str
    name: str
    role: Role
    created_at: datetime


_MEMBER = select(project_roles, users.c.email, users.c.name).join(users, users.c.id == project_roles.c.user_id)


async def put_role(connection: AsyncConnection, scope: OrgScope, project_id: UUID, user_id: UUID, role: Role) -> None:
    """Let a member of the scope's org hold a role in a project. Raises `sqlalchemy.exc.IntegrityError` for a stranger."""
    statement = insert(project_roles).values(
        id=uuid7(),
        org_id=UUID(scope.org_id),
        project_id=project_id,
        user_id=user_id,
        role=role,
        created_at=func.now(),
    )
    changed = statement.on_conflict_do_update(index_elements=["project_id", "user_id"], set_={"role": role})
    await connection.execute(changed)


async def find_project_member(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, user_id: UUID
) -> ProjectMember | None:
    """Who holds a role in a project of the scope's org."""
    query = _MEMBER.where(
        project_roles.c.org_id == UUID(scope.org_id),
        project_roles.c.project_id == project_id,
        project_roles.c.user_id == user_id,
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return ProjectMember(**{**row, "role": Role(row["role"])}) if row else None


async def list_project_members(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, *, after: UUID | None, limit: int
) -> list[ProjectMember]:
    """All who hold a role in a project of the scope's org, newest first."""
    query = _MEMBER.where(project_roles.c.org_id == UUID(scope.org_id), project_roles.c.project_id == project_id)
    query = query.order_by(project_roles.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(project_roles.c.id < after)
    rows = (await connection.execute(query)).mappings()
    return [ProjectMember(**{**row, "role": Role(row["role"])}) for row in rows]


async def delete_role(connection: AsyncConnection, scope: OrgScope, project_id: UUID, user_id: UUID) -> None:
    """Take a member's role in a project."""
    await connection.execute(
        delete(project_roles).where(
            project_roles.c.org_id == UUID(scope.org_id),
            project_roles.c.project_id == project_id,
            project_roles.c.user_id == user_id,
        )
    )
