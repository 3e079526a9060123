"""Removing what was deleted long enough ago."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import (
    api_keys,
    invitations,
    members,
    orgs,
    project_roles,
    projects,
    retired_digests,
    role_assignments,
    roles,
    service_accounts,
)


async def find_expired_org(connection: AsyncConnection, deleted_before: datetime) -> UUID | None:
    """An org that was deleted before a moment and not purged, locked; one that another process purges is passed over."""
    query = select(orgs.c.id).where(orgs.c.deleted_at < deleted_before, orgs.c.purged_at.is_(None))
    query = query.order_by(orgs.c.deleted_at).limit(1).with_for_update(skip_locked=True)
    return (await connection.execute(query)).scalar_one_or_none()


async def find_expired_project(connection: AsyncConnection, deleted_before: datetime) -> tuple[UUID, UUID] | None:
    """The org and the id of a project that was deleted before a moment, locked; passed over as above."""
    query = select(projects.c.org_id, projects.c.id).where(projects.c.deleted_at < deleted_before)
    query = query.order_by(projects.c.deleted_at).limit(1).with_for_update(skip_locked=True)
    row = (await connection.execute(query)).one_or_none()
    return (row.org_id, row.id) if row else None


async def list_project_ids(connection: AsyncConnection, org_id: UUID) -> list[UUID]:
    """The projects of an org."""
    return list((await connection.execute(select(projects.c.id).where(projects.c.org_id == org_id))).scalars())


async def delete_projects(connection: AsyncConnection, project_ids: Sequence[UUID]) -> list[str]:
    """Remove projects with their keys, service accounts and roles; the digests of all texts that the keys had."""
    keys = select(api_keys.c.id).where(api_keys.c.project_id.in_(project_ids))
    present = select(api_keys.c.digest).where(api_keys.c.project_id.in_(project_ids))
    retired = select(retired_digests.c.digest).where(retired_digests.c.api_key_id.in_(keys))
    digests = list((await connection.execute(union_all(present, retired))).scalars())
    for table in (api_keys, service_accounts, project_roles, role_assignments):
        await connection.execute(delete(table).where(table.c.project_id.in_(project_ids)))
    await connection.execute(delete(projects).where(projects.c.id.in_(project_ids)))
    return digests


async def empty_org(connection: AsyncConnection, org_id: UUID) -> None:
    """Remove an org's members, its invitations and what it says of itself.

    A bare row stays: gateways are told that it is deleted, for good.
    """
    for table in (role_assignments, roles, members, invitations):
        await connection.execute(delete(table).where(table.c.org_id == org_id))
    statement = update(orgs).where(orgs.c.id == org_id)
    blank = {"name": "", "models": None, "sign_in_domains": None, "ip_networks": None, "key_lifetime_days_max": None}
    await connection.execute(
        statement.values(**blank, purged_at=func.now(), updated_at=func.now(), version=orgs.c.version + 1)
    )
