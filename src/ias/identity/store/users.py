"""Users: people, whatever orgs they belong to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import users


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`."""

    id: UUID
    email: str
    name: str
    password_hash: str | None
    platform_admin: bool
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


async def insert_user(connection: AsyncConnection, values: dict[str, Any]) -> User:
    """A new user. Raises `sqlalchemy.exc.IntegrityError` when the e-mail is taken."""
    result = await connection.execute(insert(users).values(values).returning(users))
    return User(**result.mappings().one())


async def find_user(connection: AsyncConnection, user_id: UUID) -> User | None:
    """The user of an id."""
    row = (await connection.execute(select(users).where(users.c.id == user_id))).mappings().one_or_none()
    return User(**row) if row else None


async def find_user_by_email(connection: AsyncConnection, email: str) -> User | None:
    """The user of a normalised e-mail."""
    row = (await connection.execute(select(users).where(users.c.email == email))).mappings().one_or_none()
    return User(**row) if row else None


async def has_platform_admin(connection: AsyncConnection) -> bool:
    """Whether anybody administers the platform."""
    result = await connection.execute(select(exists().where(users.c.platform_admin)))
    return bool(result.scalar_one())
