"""Service accounts: holders of keys that are nobody's own. The row of a deleted one stays, and is found no more."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import service_accounts
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A row of `service_accounts`."""

    id: UUID
    org_id: UUID
    project_id: UUID
    name: str
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


async def insert_service_account(connection: AsyncConnection, values: dict[str, Any]) -> ServiceAccount:
    """A new service account. Raises `sqlalchemy.exc.IntegrityError` when the project has one of that name."""
    result = await connection.execute(insert(service_accounts).values(values).returning(service_accounts))
    return ServiceAccount(**result.mappings().one())


async def find_place(connection: AsyncConnection, account_id: UUID) -> tuple[UUID, UUID] | None:
    """The org and the project of a service account: all that may be known of it before the caller has a scope."""
    query = select(service_accounts.c.org_id, service_accounts.c.project_id).where(
        service_accounts.c.id == account_id, service_accounts.c.status != "deleted"
    )
    row = (await connection.execute(query)).one_or_none()
    return (row.org_id, row.project_id) if row else None


async def find_service_account(
    connection: AsyncConnection,
    scope: OrgScope,
    account_id: UUID,
    *,
    project_id: UUID | None = None,
    lock: bool = False,
) -> ServiceAccount | None:
    """A service account of the scope's org; of one project in it, when that is given."""
    query = select(service_accounts).where(
        service_accounts.c.org_id == UUID(scope.org_id),
        service_accounts.c.id == account_id,
        service_accounts.c.status != "deleted",
    )
    if project_id is not None:
        query = query.where(service_accounts.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return ServiceAccount(**row) if row else None


async def list_service_accounts(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, *, after: UUID | None, limit: int
) -> list[ServiceAccount]:
    """Service accounts of a project in the scope's org, newest first."""
    query = (
        select(service_accounts)
        .where(
            service_accounts.c.org_id == UUID(scope.org_id),
            service_accounts.c.project_id == project_id,
            service_accounts.c.status != "deleted",
        )
        .order_by(service_accounts.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(service_accounts.c.id < after)
    return [ServiceAccount(**row) for row in (await connection.execute(query)).mappings()]


async def update_service_account(
    connection: AsyncConnection, scope: OrgScope, account_id: UUID, changes: dict[str, Any]
) -> ServiceAccount:
    """The account after the change, one version further. Raises `sqlalchemy.exc.IntegrityError` when the name is taken."""
    statement = update(service_accounts).where(
        service_accounts.c.org_id == UUID(scope.org_id), service_accounts.c.id == account_id
    )
    statement = statement.values(**changes, version=service_accounts.c.version + 1, updated_at=func.now())
    return ServiceAccount(**(await connection.execute(statement.returning(service_accounts))).mappings().one())
