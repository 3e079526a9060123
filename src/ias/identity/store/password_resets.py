"""Links to set a password. They are kept by e-mail, whether or not anybody has it; the token is here as its digest alone."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import password_resets


async def insert_reset(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """A new link."""
    await connection.execute(insert(password_resets).values(values))


async def count_resets(connection: AsyncConnection, email: str) -> int:
    """How many links an e-mail has."""
    query = select(func.count()).where(password_resets.c.email == email)
    return int((await connection.execute(query)).scalar_one())


async def find_email_of_reset(connection: AsyncConnection, token_digest: str, now: datetime) -> str | None:
    """Whose link it is; None when it is over."""
    query = select(password_resets.c.email).where(
        password_resets.c.token_digest == token_digest, password_resets.c.expires_at > now
    )
    email: str | None = (await connection.execute(query)).scalar_one_or_none()
    return email


async def use_reset(connection: AsyncConnection, token_digest: str, email: str) -> bool:
    """Use a link up; False when somebody else just did."""
    statement = delete(password_resets).where(
        password_resets.c.token_digest == token_digest, password_resets.c.email == email
    )
    return (await connection.execute(statement)).rowcount == 1


async def delete_resets_of(connection: AsyncConnection, email: str) -> None:
    """Let no link of an e-mail work any more."""
    await connection.execute(delete(password_resets).where(password_resets.c.email == email))


async def delete_resets_expired_before(connection: AsyncConnection, moment: datetime) -> None:
    """Forget what is over."""
    await connection.execute(delete(password_resets).where(password_resets.c.expires_at < moment))
