"""Users: people, whatever orgs they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import members, users


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`."""

    id: UUID
    email: str
    name: str
    password_hash: str | None
    email_confirmed_at: datetime | None
    platform_admin: bool
    status: str
    version: int
    token_version: int
    token_version_at: datetime | None
    created_at: datetime
    updated_at: datetime


async def insert_user(connection: AsyncConnection, values: dict[str, Any]) -> User:
    """A new user. Raises `sqlalchemy.exc.IntegrityError` when the e-mail is taken."""
    result = await connection.execute(insert(users).values(values).returning(users))
    return User(**result.mappings().one())


async def find_user(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> User | None:
    """The user of an id."""
    query = select(users).where(users.c.id == user_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return User(**row) if row else None


async def lock_users(connection: AsyncConnection, user_ids: Sequence[UUID]) -> None:
    """Let nobody else change these users, or make keys of theirs, until the commit; in one order, whoever locks."""
    query = select(users.c.id).where(users.c.id.in_(user_ids)).order_by(users.c.id)
    await connection.execute(query.with_for_update(key_share=True))


async def list_users(connection: AsyncConnection, *, email: str | None, after: UUID | None, limit: int) -> list[User]:
    """Users, newest first; the one of a normalised e-mail alone, when that is given."""
    query = select(users).order_by(users.c.id.desc()).limit(limit)
    if email is not None:
        query = query.where(users.c.email == email)
    if after is not None:
        query = query.where(users.c.id < after)
    return [User(**row) for row in (await connection.execute(query)).mappings()]


async def update_user(connection: AsyncConnection, user_id: UUID, changes: dict[str, Any]) -> None:
    """Change a user, who is one version further then."""
    statement = update(users).where(users.c.id == user_id)
    await connection.execute(statement.values(**changes, version=users.c.version + 1, updated_at=func.now()))


async def lock_platform_admins(connection: AsyncConnection) -> list[UUID]:
    """Who administers the platform and is not suspended. Nobody else changes who does until the commit."""
    query = select(users.c.id).where(users.c.platform_admin, users.c.status == "active").order_by(users.c.id)
    return list((await connection.execute(query.with_for_update(key_share=True))).scalars())


async def find_user_by_email(connection: AsyncConnection, email: str, *, lock: bool = False) -> User | None:
    """The user of a normalised e-mail."""
    query = select(users).where(users.c.email == email)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return User(**row) if row else None


async def set_password(connection: AsyncConnection, user_id: UUID, password_hash: str | None) -> None:
    """The user's password from now on; None for no password."""
    statement = update(users).where(users.c.id == user_id)
    await connection.execute(
        statement.values(password_hash=password_hash, version=users.c.version + 1, updated_at=func.now())
    )


async def replace_password(connection: AsyncConnection, user_id: UUID, old_hash: str, new_hash: str) -> bool:
    """Another password in place of the one that was checked; False when that is not the user's any more."""
    statement = update(users).where(users.c.id == user_id, users.c.password_hash == old_hash)
    statement = statement.values(password_hash=new_hash, version=users.c.version + 1, updated_at=func.now())
    return (await connection.execute(statement)).rowcount == 1


async def confirm_email(connection: AsyncConnection, user_id: UUID, *, name: str | None = None) -> None:
    """Remember that the user has shown to have their e-mail, and what they call themselves; when they first did stays."""
    statement = update(users).where(users.c.id == user_id, users.c.email_confirmed_at.is_(None))
    await connection.execute(statement.values(email_confirmed_at=func.now(), name=name or users.c.name))


async def raise_token_version(connection: AsyncConnection, user_id: UUID) -> None:
    """From the commit on the user's access tokens are too old: something was taken from them."""
    statement = update(users).where(users.c.id == user_id)
    await connection.execute(statement.values(token_version=users.c.token_version + 1, token_version_at=func.now()))


async def raise_token_versions_in_org(
    connection: AsyncConnection, org_id: UUID, *, but: UUID | None = None
) -> list[UUID]:
    """As above, for every member of an org but one; who they are."""
    of_org = select(members.c.user_id).where(members.c.org_id == org_id)
    if but is not None:
        of_org = of_org.where(members.c.user_id != but)
    statement = update(users).where(users.c.id.in_(of_org)).returning(users.c.id)
    raised = statement.values(token_version=users.c.token_version + 1, token_version_at=func.now())
    return list((await connection.execute(raised)).scalars())


async def list_token_versions(
    connection: AsyncConnection, user_ids: Sequence[UUID] | None, *, raised_within: timedelta
) -> dict[UUID, int]:
    """The token versions that were raised lately: of these users, or of all."""
    query = select(users.c.id, users.c.token_version).where(users.c.token_version_at > func.now() - raised_within)
    if user_ids is not None:
        query = query.where(users.c.id.in_(user_ids))
    return {row.id: row.token_version for row in await connection.execute(query)}


async def has_platform_admin(connection: AsyncConnection) -> bool:
    """Whether anybody administers the platform."""
    result = await connection.execute(select(exists().where(users.c.platform_admin)))
    return bool(result.scalar_one())
