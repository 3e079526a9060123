"""Failed attempts by the digest of what they are counted of: an e-mail, an IP address."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import sign_in_attempts


@dataclass(frozen=True, slots=True)
class SignInAttempts:
    """A row of `sign_in_attempts`."""

    digest: str
    failures: int
    last_at: datetime
    locked_until: datetime | None


async def find_attempts(connection: AsyncConnection, digest: str) -> SignInAttempts | None:
    """The failed attempts of something."""
    query = select(sign_in_attempts).where(sign_in_attempts.c.digest == digest)
    row = (await connection.execute(query)).mappings().one_or_none()
    return SignInAttempts(**row) if row else None


async def lock_attempts(connection: AsyncConnection, digest: str, now: datetime) -> SignInAttempts:
    """The failed attempts of something, made if absent. Others who count wait for this transaction, so that none is lost."""
    fresh = insert(sign_in_attempts).values(digest=digest, failures=0, last_at=now)
    await connection.execute(fresh.on_conflict_do_nothing())
    query = select(sign_in_attempts).where(sign_in_attempts.c.digest == digest).with_for_update()
    return SignInAttempts(**(await connection.execute(query)).mappings().one())


async def update_attempts(connection: AsyncConnection, attempts: SignInAttempts) -> None:
    """Write a row back."""
    statement = update(sign_in_attempts).where(sign_in_attempts.c.digest == attempts.digest)
    await connection.execute(
        statement.values(failures=attempts.failures, last_at=attempts.last_at, locked_until=attempts.locked_until)
    )


async def delete_attempts(connection: AsyncConnection, digest: str) -> None:
    """Forget the failures."""
    await connection.execute(delete(sign_in_attempts).where(sign_in_attempts.c.digest == digest))


async def delete_attempts_before(connection: AsyncConnection, moment: datetime) -> None:
    """Forget what is too old to count."""
    await connection.execute(delete(sign_in_attempts).where(sign_in_attempts.c.last_at < moment))
