"""E-mail: written down with the change that causes it, sent right after by a worker, tried again when that fails.

So an e-mail is neither lost nor sent for a change that was rolled back, and an answer takes no longer when there is somebody to
write to. What is written down holds links that open things, so it is sealed.
"""

import json
import unicodedata
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.store import outgoing_mails as store
from ias.kit.database import Database
from ias.kit.sealing import SealBrokenError, Sealer

log = structlog.get_logger("ias.identity.mails")

TRIES_MAX = 8
_LEASE = timedelta(minutes=2)
"""How long a worker has for one try before another may take over."""
_RETRY_FIRST = timedelta(seconds=10)
_RETRY_LONGEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Mail:
    """Plain text for one address."""

    to: str
    subject: str
    text: str


class Mailer(Protocol):
    """Something that sends e-mail."""

    async def send(self, mail: Mail) -> None:
        """Return when it is on its way. Raises `OSError` or `aiosmtplib.SMTPException` when it is not."""
        ...


class SmtpMailer:
    """Sends by SMTP: `smtps://` encrypted from the start, `smtp+starttls://` before anything is said, `smtp://` not."""

    def __init__(self, url: str, *, sender: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._port = parts.port or {"smtps": 465, "smtp+starttls": 587, "smtp": 25}[parts.scheme]
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._use_tls = parts.scheme == "smtps"
        self._start_tls = parts.scheme == "smtp+starttls"
        self._sender = sender
        self._timeout_s = timeout_s

    async def send(self, mail: Mail) -> None:
        """See `Mailer`."""
        await aiosmtplib.send(
            compose(mail, self._sender),
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._use_tls,
            start_tls=self._start_tls,
            timeout=self._timeout_s,
        )


class LogMailer:
    """For a platform without a mail server: says in the log that there was an e-mail, and what it says only when allowed."""

    def __init__(self, *, show_text: bool) -> None:
        self._show_text = show_text

    async def send(self, mail: Mail) -> None:
        """See `Mailer`."""
        if self._show_text:
            log.warning("no mail server is set: this is the e-mail", to=mail.to, subject=mail.subject, text=mail.text)
        else:
            log.warning("no mail server is set: an e-mail was not sent", to=mail.to, subject=mail.subject)


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
        except (OSError, aiosmtplib.SMTPException, ValueError, SealBrokenError) as error:
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


def compose(mail: Mail, sender: str) -> EmailMessage:
    """The message. No text that somebody chose can begin a new header: line breaks become spaces.

    Raises:
        ValueError: the address is none.
    """
    message = EmailMessage()
    message["From"] = sender
    message["To"] = Address(addr_spec=mail.to)
    message["Subject"] = on_one_line(mail.subject)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    message.set_content(mail.text)
    return message


def on_one_line(text: str) -> str:
    """The text without control characters and line breaks, its spaces single, not longer than a headline."""
    printable = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    return " ".join("".join(printable).split())[:200]


def check_smtp_url(url: str) -> None:
    """Return when a text has the form of a mail server's address.

    Raises:
        ValueError: saying what the form is, and nothing of the text.
    """
    wrong = ValueError("must be a URL like smtp+starttls://user:password@host:587 (or smtps://, smtp://)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if (
        parts.scheme not in ("smtp", "smtps", "smtp+starttls")
        or not parts.hostname
        or port == 0
        or parse_qs(parts.query)
    ):
        raise wrong
