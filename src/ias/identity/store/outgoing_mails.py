"""E-mails that were not sent yet."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import outgoing_mails


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """A row of `outgoing_mails`."""

    id: UUID
    sealed: str
    tries: int
    next_try_at: datetime
    created_at: datetime


async def insert_mail(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """A new e-mail."""
    await connection.execute(insert(outgoing_mails).values(values))


async def take_due_mail(connection: AsyncConnection, now: datetime, *, lease: timedelta) -> OutgoingMail | None:
    """An e-mail that is due, counted as tried; nobody else takes it before the lease is over."""
    due = (
        select(outgoing_mails.c.id)
        .where(outgoing_mails.c.next_try_at <= now)
        .order_by(outgoing_mails.c.next_try_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(outgoing_mails)
        .where(outgoing_mails.c.id == due)
        .values(tries=outgoing_mails.c.tries + 1, next_try_at=now + lease)
        .returning(outgoing_mails)
    )
    row = (await connection.execute(statement)).mappings().one_or_none()
    return OutgoingMail(**row) if row else None


async def put_off_mail(connection: AsyncConnection, mail_id: UUID, until: datetime) -> None:
    """Try an e-mail again at a time."""
    await connection.execute(update(outgoing_mails).where(outgoing_mails.c.id == mail_id).values(next_try_at=until))


async def delete_mail(connection: AsyncConnection, mail_id: UUID) -> None:
    """Forget an e-mail: it was sent, or given up."""
    await connection.execute(delete(outgoing_mails).where(outgoing_mails.c.id == mail_id))
