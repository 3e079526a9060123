"""Orgs: the tenants."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import orgs


@dataclass(frozen=True, slots=True)
class Org:
    """A row of `orgs`."""

    id: UUID
    name: str
    status: str
    suspended_by: str | None
    """`org` or `platform`; None where it is not suspended, and would not be if its deletion were taken back."""
    deleted_by: str | None
    models: list[str] | None
    key_lifetime_days_max: int | None
    sign_in_domains: list[str] | None
    ip_networks: list[str] | None
    version: int
    pushed_version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    purged_at: datetime | None


async def insert_org(connection: AsyncConnection, values: dict[str, Any]) -> Org:
    """A new org."""
    result = await connection.execute(insert(orgs).values(values).returning(orgs))
    return Org(**result.mappings().one())


async def find_org(connection: AsyncConnection, org_id: UUID, *, lock: bool = False) -> Org | None:
    """The org of an id, which was not purged. `lock` keeps other changes of it, its members above all, waiting for the commit."""
    query = select(orgs).where(orgs.c.id == org_id, orgs.c.purged_at.is_(None))
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return Org(**row) if row else None


async def list_orgs(
    connection: AsyncConnection, org_ids: Collection[str] | None, *, after: UUID | None, limit: int
) -> list[Org]:
    """Orgs among `org_ids` (None is all), newest first."""
    query = select(orgs).where(orgs.c.purged_at.is_(None)).order_by(orgs.c.id.desc()).limit(limit)
    if org_ids is not None:
        query = query.where(orgs.c.id.in_([UUID(org_id) for org_id in org_ids]))
    if after is not None:
        query = query.where(orgs.c.id < after)
    return [Org(**row) for row in (await connection.execute(query)).mappings()]


async def update_org(connection: AsyncConnection, org_id: UUID, changes: dict[str, Any]) -> Org:
    """The org after the change, one version further."""
    statement = update(orgs).where(orgs.c.id == org_id).returning(orgs)
    statement = statement.values(**changes, version=orgs.c.version + 1, updated_at=func.now())
    return Org(**(await connection.execute(statement)).mappings().one())
