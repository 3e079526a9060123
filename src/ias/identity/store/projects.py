"""Projects: where an org's keys, limits and usage live."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import projects
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class Project:
    """A row of `projects`."""

    id: UUID
    org_id: UUID
    name: str
    is_default: bool
    status: str
    models: list[str] | None
    version: int
    pushed_version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


async def insert_project(connection: AsyncConnection, values: dict[str, Any]) -> Project:
    """A new project. Raises `sqlalchemy.exc.IntegrityError` when the org has one of that name."""
    result = await connection.execute(insert(projects).values(values).returning(projects))
    return Project(**result.mappings().one())


async def find_org_id(connection: AsyncConnection, project_id: UUID) -> UUID | None:
    """The org that a project belongs to: all that may be known of it before the caller has a scope."""
    result = await connection.execute(select(projects.c.org_id).where(projects.c.id == project_id))
    return result.scalar_one_or_none()


async def find_project(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, *, lock: bool = False
) -> Project | None:
    """A project of the scope's org."""
    query = select(projects).where(projects.c.org_id == UUID(scope.org_id), projects.c.id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return Project(**row) if row else None


async def list_projects(
    connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int
) -> list[Project]:
    """Projects of the scope's org, newest first."""
    query = select(projects).where(projects.c.org_id == UUID(scope.org_id)).order_by(projects.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(projects.c.id < after)
    return [Project(**row) for row in (await connection.execute(query)).mappings()]


async def update_project(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, changes: dict[str, Any]
) -> Project:
    """The project after the change, one version further."""
    statement = update(projects).where(projects.c.org_id == UUID(scope.org_id), projects.c.id == project_id)
    statement = statement.values(**changes, version=projects.c.version + 1, updated_at=func.now())
    return Project(**(await connection.execute(statement.returning(projects))).mappings().one())
