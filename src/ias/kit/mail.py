"""E-mail: plain text for one address, by SMTP, or to the log of a platform without a mail server."""

import unicodedata
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Annotated, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
import structlog
from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

log = structlog.get_logger("ias.mail")

MAIL_ERRORS = (OSError, aiosmtplib.SMTPException, ValueError)
"""What sending may raise. ValueError: an address or a header that cannot be."""


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


def _check_smtp_url(secret: SecretStr) -> SecretStr:
    check_smtp_url(secret.get_secret_value())
    return secret


SmtpUrl = Annotated[SecretStr, AfterValidator(_check_smtp_url)]


class MailSettings(BaseSettings):
    """What whoever sends e-mail is told."""

    model_config = SettingsConfigDict(env_prefix="IAS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    smtp_url: SmtpUrl | None = Field(
        None,
        description="Mail server: `smtp+starttls://user:password@host:587`, `smtps://…` or, unencrypted, `smtp://…`; unset sends"
        " no e-mail and says so in the log.",
    )
    mail_from: str = Field("IAS <ias@localhost>", description="Whom e-mails come from.")
    mail_timeout_s: float = Field(20.0, gt=0, le=60, description="Deadline of sending one e-mail.")
    mail_to_log: bool = Field(
        False,
        description="Without a mail server, write e-mails to the log with the links they carry. For development: who reads the"
        " log can then open them.",
    )


def build_mailer(settings: MailSettings) -> Mailer:
    """The mailer for the mail server of the settings, or for none."""
    if settings.smtp_url is None:
        return LogMailer(show_text=settings.mail_to_log)
    url = settings.smtp_url.get_secret_value()
    return SmtpMailer(url, sender=settings.mail_from, timeout_s=settings.mail_timeout_s)
