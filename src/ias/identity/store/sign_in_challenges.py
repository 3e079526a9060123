"""Sign-ins that wait for the second factor. The token of one is here as its digest alone."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import sign_in_challenges


@dataclass(frozen=True, slots=True)
class SignInChallenge:
    """A row of `sign_in_challenges`."""

    token_digest: str
    user_id: UUID
    tries: int
    created_at: datetime
    expires_at: datetime


async def insert_challenge(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """A sign-in that begins to wait."""
    await connection.execute(insert(sign_in_challenges).values(values))


async def try_challenge(connection: AsyncConnection, token_digest: str, now: datetime) -> SignInChallenge | None:
    """The waiting sign-in, one try further; None when there is none (any more)."""
    statement = (
        update(sign_in_challenges)
        .where(sign_in_challenges.c.token_digest == token_digest, sign_in_challenges.c.expires_at > now)
        .values(tries=sign_in_challenges.c.tries + 1)
        .returning(sign_in_challenges)
    )
    row = (await connection.execute(statement)).mappings().one_or_none()
    return SignInChallenge(**row) if row else None


async def delete_challenge(connection: AsyncConnection, token_digest: str) -> bool:
    """It was answered, or tried too often; False when it was gone already."""
    statement = delete(sign_in_challenges).where(sign_in_challenges.c.token_digest == token_digest)
    return (await connection.execute(statement)).rowcount == 1


async def delete_challenges_of(connection: AsyncConnection, user_id: UUID) -> None:
    """The user's password is another one: what was begun with the old one is over."""
    await connection.execute(delete(sign_in_challenges).where(sign_in_challenges.c.user_id == user_id))


async def delete_challenges_expired_before(connection: AsyncConnection, moment: datetime) -> None:
    """Forget what nobody answered."""
    await connection.execute(delete(sign_in_challenges).where(sign_in_challenges.c.expires_at < moment))
