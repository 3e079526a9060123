"""Members: which users belong to an org, with which role, and their narrower roles in single projects."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.permissions import Role
from ias.identity.store.tables import members, orgs, users
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class Member:
    """A row of `members`, with who it is."""

    id: UUID
    org_id: UUID
    user_id: UUID
    email: str
    name: str
    role: Role
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """An org that a user belongs to."""

    org_id: UUID
    org_name: str
    role: Role


_MEMBER = select(members, users.c.email, users.c.name).join(users, users.c.id == members.c.user_id)


async def insert_member(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """A new member. Raises `sqlalchemy.exc.IntegrityError` when they already are one."""
    await connection.execute(insert(members).values(values))


async def insert_member_if_absent(connection: AsyncConnection, values: dict[str, Any]) -> bool:
    """A new member; False when they already are one."""
    statement = insert_or_not(members).values(values).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def find_member(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> Member | None:
    """The member of the scope's org who is this user."""
    query = _MEMBER.where(members.c.org_id == UUID(scope.org_id), members.c.user_id == user_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _member(row) if row else None


async def list_members(connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int) -> list[Member]:
    """Members of the scope's org, newest first."""
    query = _MEMBER.where(members.c.org_id == UUID(scope.org_id)).order_by(members.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(members.c.id < after)
    return [_member(row) for row in (await connection.execute(query)).mappings()]


async def update_member(connection: AsyncConnection, scope: OrgScope, user_id: UUID, changes: dict[str, Any]) -> None:
    """Change a member, who is one version further then."""
    statement = update(members).where(members.c.org_id == UUID(scope.org_id), members.c.user_id == user_id)
    await connection.execute(
        statement.values(**changes, version=members.c.version + 1, updated_at=func.now()),
    )


async def delete_member(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> None:
    """Remove a member, and with them their roles in projects."""
    await connection.execute(
        delete(members).where(members.c.org_id == UUID(scope.org_id), members.c.user_id == user_id)
    )


async def count_owners(connection: AsyncConnection, scope: OrgScope) -> int:
    """How many own the scope's org and are not suspended. Lock the org first, or the answer may be old when it is used."""
    query = select(func.count()).where(
        members.c.org_id == UUID(scope.org_id), members.c.role == Role.OWNER, members.c.status == "active"
    )
    return int((await connection.execute(query)).scalar_one())


@dataclass(frozen=True, slots=True)
class SignInRule:
    """Who may act in an org, and from where. None is all."""

    org_id: str
    sign_in_domains: list[str] | None
    ip_networks: list[str] | None


async def list_sign_in_rules(connection: AsyncConnection, org_ids: Collection[str]) -> list[SignInRule]:
    """The rules of those of the orgs that have any."""
    query = select(orgs.c.id, orgs.c.sign_in_domains, orgs.c.ip_networks).where(
        orgs.c.id.in_([UUID(org_id) for org_id in org_ids]),
        orgs.c.sign_in_domains.is_not(None) | orgs.c.ip_networks.is_not(None),
    )
    rows = await connection.execute(query)
    return [SignInRule(str(row.id), row.sign_in_domains, row.ip_networks) for row in rows]


async def list_owner_emails(
    connection: AsyncConnection, org_id: UUID, *, but_platform_admins: bool = False
) -> list[str]:
    """The e-mails of an org's owners, who are not suspended; all, or those who hold nothing beyond orgs."""
    query = (
        select(users.c.email)
        .join(members, members.c.user_id == users.c.id)
        .where(members.c.org_id == org_id, members.c.role == Role.OWNER, members.c.status == "active")
    )
    if but_platform_admins:
        query = query.where(~users.c.platform_admin)
    return list((await connection.execute(query)).scalars())


async def list_memberships(connection: AsyncConnection, user_id: UUID) -> list[Membership]:
    """The orgs a user belongs to, oldest first."""
    query = (
        select(members.c.org_id, orgs.c.name.label("org_name"), members.c.role)
        .join(orgs, orgs.c.id == members.c.org_id)
        .where(members.c.user_id == user_id, members.c.status == "active", orgs.c.status != "deleted")
        .order_by(members.c.org_id)
    )
    return [Membership(row.org_id, row.org_name, Role(row.role)) for row in await connection.execute(query)]


def _member(row: Any) -> Member:
    return Member(**{**row, "role": Role(row["role"])})
