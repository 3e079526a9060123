"""E-mail: written down with the change that causes it, sent right after by a worker, tried again when that fails.

So an e-mail is neither lost nor sent for a change that was rolled back, and an answer takes no longer when there is somebody to
write to. What is written down holds links that open things, so it is sealed.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.store import outgoing_mails as store
from ias.kit.database import Database
from ias.kit.mail import MAIL_ERRORS, Mail, Mailer
from ias.kit.sealing import SealBrokenError, Sealer

log = structlog.get_logger("ias.identity.mails")

TRIES_MAX = 8
_LEASE = timedelta(minutes=2)
"""How long a worker has for one try before another may take over."""
_RETRY_FIRST = timedelta(seconds=10)
_RETRY_LONGEST = timedelta(hours=1)


class Mails:
    """Writes e-mails down, and sends what is due."""

    def __init__(self, database: Database, mailer: Mailer, sealer: Sealer) -> None:
        self._database = database
        self._mailer = mailer
        self._sealer = sealer

    async def queue(self, connection: AsyncConnection, mail: Mail | None) -> None:
        """Send an e-mail once the transaction is committed. None does as much and sends nothing: nobody has the address."""
        now = datetime.now(UTC)
        sealed = self._sealer.seal(json.dumps(asdict(mail) if mail else None))
        values = {"id": uuid7(), "sealed": sealed, "tries": 0, "next_try_at": now, "created_at": now}
        await store.insert_mail(connection, values)

    async def send_due(self) -> int:
        """Send what is due, one after the other; how many were tried."""
        tried = 0
        while await self._send_one():
            tried += 1
        return tried

    async def _send_one(self) -> bool:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            row = await store.take_due_mail(connection, now, lease=_LEASE)
        if row is None:
            return False
        try:
            wanted = json.loads(self._sealer.open(row.sealed))
            if wanted is not None:
                await self._mailer.send(Mail(**wanted))
        except (*MAIL_ERRORS, SealBrokenError) as error:
            # ValueError: an address or a header that cannot be; like a broken seal it is given up like the rest.
            await self._put_off(row, now, error)
            return True
        async with self._database.transaction() as connection:
            await store.delete_mail(connection, row.id)
        return True

    async def _put_off(self, row: store.OutgoingMail, now: datetime, error: Exception) -> None:
        is_last = row.tries >= TRIES_MAX
        # The text of the error may hold the address; its type and the server's code do not.
        log.error(
            "an e-mail was given up" if is_last else "an e-mail could not be sent yet",
            mail_id=str(row.id),
            tries=row.tries,
            error=type(error).__name__,
            smtp_code=getattr(error, "code", None),
        )
        async with self._database.transaction() as connection:
            if is_last:
                await store.delete_mail(connection, row.id)
            else:
                wait = min(_RETRY_FIRST * (1 << row.tries), _RETRY_LONGEST)
                await store.put_off_mail(connection, row.id, now + wait)
