"""Failed sign-ins by e-mail, whether or not anybody has it: a lock must not tell which e-mails exist."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import sign_in_attempts


@dataclass(frozen=True, slots=True)
class SignInAttempts:
    """A row of `sign_in_attempts`."""

    email_digest: str
    failures: int
    last_at: datetime
    locked_until: datetime | None


async def find_attempts(connection: AsyncConnection, email_digest: str) -> SignInAttempts | None:
    """The failed attempts on an e-mail."""
    query = select(sign_in_attempts).where(sign_in_attempts.c.email_digest == email_digest)
    row = (await connection.execute(query)).mappings().one_or_none()
    return SignInAttempts(**row) if row else None


async def lock_attempts(connection: AsyncConnection, email_digest: str, now: datetime) -> SignInAttempts:
    """The failed attempts on an e-mail, made if absent. Others who count wait for this transaction, so that none is lost."""
    fresh = insert(sign_in_attempts).values(email_digest=email_digest, failures=0, last_at=now)
    await connection.execute(fresh.on_conflict_do_nothing())
    query = select(sign_in_attempts).where(sign_in_attempts.c.email_digest == email_digest).with_for_update()
    return SignInAttempts(**(await connection.execute(query)).mappings().one())


async def update_attempts(connection: AsyncConnection, attempts: SignInAttempts) -> None:
    """Write a row back."""
    statement = update(sign_in_attempts).where(sign_in_attempts.c.email_digest == attempts.email_digest)
    await connection.execute(
        statement.values(failures=attempts.failures, last_at=attempts.last_at, locked_until=attempts.locked_until)
    )


async def delete_attempts(connection: AsyncConnection, email_digest: str) -> None:
    """Forget the failures: the right password was given."""
    await connection.execute(delete(sign_in_attempts).where(sign_in_attempts.c.email_digest == email_digest))


async def delete_attempts_before(connection: AsyncConnection, moment: datetime) -> None:
    """Forget what is too old to count."""
    await connection.execute(delete(sign_in_attempts).where(sign_in_attempts.c.last_at < moment))
