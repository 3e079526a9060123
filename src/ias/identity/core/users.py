"""Users: their e-mails, the platform's administrators, what a user may know about themselves, and suspending them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from email_validator import EmailNotValidError, validate_email
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Cause, Change, Origin, append
from ias.identity.core.passwords import Passwords
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import api_keys as key_store
from ias.identity.store import members as member_store
from ias.identity.store import sessions as session_store
from ias.identity.store import users as store
from ias.identity.store.grants import Grant, list_grants
from ias.identity.store.members import Membership
from ias.identity.store.users import User
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError, UnauthenticatedError
from ias.kit.tokens import Claims
from ias.kit.writes import check_version

log = structlog.get_logger("ias.identity.users")

EMAIL_CHARACTERS_MAX = 254
_PUBLIC = ".example.com"
"""Appended while a domain is checked: the library refuses names of private networks (`.local`), where people have e-mail too."""


def normalize_email(text: str) -> str:
    """The one spelling of an e-mail: compatibility characters folded (NFKC), no case, the domain as DNS knows it (IDNA).

    A domain of look-alike letters thus shows as the `xn--` that it is. What is no e-mail comes back folded.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    return _find_email(folded) or folded


def _find_email(folded: str) -> str | None:
    """The e-mail; None when it has not the form of one. Its local part is ASCII: other letters are taken for others."""
    try:
        parts = validate_email(folded + _PUBLIC, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return None
    return f"{parts.local_part}@{(parts.ascii_domain or '').removesuffix(_PUBLIC)}"


def check_email(text: str) -> str:
    """The normalised form of an e-mail that somebody shall have.

    Raises:
        InvalidError: it has not the form of one.
    """
    email = _find_email(normalize_email(text)) if len(text) <= 2 * EMAIL_CHARACTERS_MAX else None
    if email is None or len(email) > EMAIL_CHARACTERS_MAX:
        detail = "This is not an e-mail address."
        raise InvalidError(detail, code="invalid_email", errors=[FieldError(pointer="/email", detail=detail)])
    return email


def describe(user: User) -> dict[str, Any]:
    """What the audit log says of a user."""
    return {"email": user.email, "name": user.name, "platform_admin": user.platform_admin, "status": user.status}


@dataclass(frozen=True, slots=True)
class Me:
    """Somebody, and everything they hold."""

    user: User
    session_id: UUID
    memberships: Sequence[Membership]
    project_roles: Sequence[Grant]
    """Built-in ones."""
    own_roles: Sequence[Grant]
    """Of the orgs' own."""


@dataclass(frozen=True, slots=True)
class UserChanges:
    """What to change of a user; None leaves it as it is."""

    status: str | None = None
    platform_admin: bool | None = None

    def against(self, user: User) -> tuple[dict[str, Any], dict[str, Any]]:
        """What differs: as it is, and as it shall be."""
        wanted = {name: value for name, value in asdict(self).items() if value not in (None, getattr(user, name))}
        return {name: getattr(user, name) for name in wanted}, wanted


async def insert_user(
    connection: AsyncConnection,
    email: str,
    password_hash: str | None,
    *,
    name: str = "",
    platform_admin: bool = False,
    email_confirmed: bool = False,
) -> User:
    """A new user with a normalised e-mail. Raises `sqlalchemy.exc.IntegrityError` when it is taken."""
    now = datetime.now(UTC)
    return await store.insert_user(
        connection,
        {
            "id": uuid7(),
            "email": email,
            "name": name or email.partition("@")[0],
            "password_hash": password_hash,
            "platform_admin": platform_admin,
            "email_confirmed_at": now if email_confirmed else None,
            "created_at": now,
            "updated_at": now,
        },
    )


class Users:
    """Users as such; their roles are `members`', their sign-ins `sessions`'. All but the caller themselves is the platform's."""

    def __init__(
        self, database: Database, passwords: Passwords, records: RedisRecords, revocations: SessionRevocations
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._records = records
        self._revocations = revocations

    async def ensure_platform_admin(self, email: str, password: str) -> None:
        """Make the first administrator of the platform where there is none.

        Raises:
            InvalidError: the e-mail or the password cannot be one.
        """
        async with self._database.transaction() as connection:
            if await store.has_platform_admin(connection):
                return
        normal, password_hash = check_email(email), await self._passwords.hash(password)
        try:
            async with self._database.transaction() as connection:
                user = await insert_user(connection, normal, password_hash, platform_admin=True, email_confirmed=True)
                await append(connection, Cause("system", None), Change("user.create", user.id, after=describe(user)))
        except IntegrityError:
            # Another process was faster, or the e-mail is that of somebody who administers nothing.
            log.warning("the first administrator was not created: somebody has the e-mail")
            return
        log.info("the first administrator was created", user_id=str(user.id))

    async def get_me(self, actor: Claims) -> Me:
        """The caller as the database knows them now.

        Raises:
            UnauthenticatedError: the session was ended, or the user suspended, since the token was issued.
        """
        if actor.session_id is None:
            raise UnauthenticatedError
        async with self._database.transaction() as connection:
            session = await session_store.find_session(connection, UUID(actor.session_id))
            user = await store.find_user(connection, UUID(actor.sub))
            if session is None or session.revoked_at is not None or user is None or user.status != "active":
                raise UnauthenticatedError("The session has ended.")
            memberships = await member_store.list_memberships(connection, user.id)
            grants = await list_grants(connection, user.id)
        own_roles = [grant for grant in grants if grant.own_name is not None]
        project_roles = [grant for grant in grants if grant.own_name is None and grant.project_id is not None]
        return Me(user, session.id, memberships, project_roles, own_roles)

    async def list_users(self, access: Access, *, email: str | None, after: UUID | None, limit: int) -> list[User]:
        """All users, or the one of an e-mail, newest first.

        Raises:
            ForbiddenError: the caller does not administer the platform.
        """
        access.on_platform()
        normal = normalize_email(email) if email is not None else None
        if normal is not None and not normal.isprintable():
            return []  # nobody has such a one, and PostgreSQL would not take a NUL
        async with self._database.transaction() as connection:
            return await store.list_users(connection, email=normal, after=after, limit=limit)

    async def get(self, access: Access, user_id: UUID) -> User:
        """The user. Raises as `list_users` does, or `NotFoundError`."""
        access.on_platform()
        async with self._database.transaction() as connection:
            return await get_user(connection, user_id)

    async def update(self, access: Access, user_id: UUID, changes: UserChanges, origin: Origin) -> tuple[User, bool]:
        """The user after the changes; and whether they are in force at the gateways.

        A suspended user is signed out everywhere, cannot sign in, and their own keys stop, in every org.

        Raises:
            ForbiddenError: the caller does not administer the platform.
            ConflictError: nobody would administer it any more.
        """
        actor = access.on_platform()
        ended: list[UUID] = []
        key_ids: list[UUID] = []
        async with self._database.transaction() as connection:
            # All of them: of two administrators who unmake each other, the second finds themselves the last.
            administrators = await store.lock_platform_admins(connection)
            user = await get_user(connection, user_id, lock=True)
            check_version(user.version)
            before, after = changes.against(user)
            if not after:
                return user, True
            remains = {"status": user.status, "platform_admin": user.platform_admin} | after
            if administrators == [user_id] and remains != {"status": "active", "platform_admin": True}:
                raise ConflictError("The platform would be left without an administrator.", code="last_platform_admin")
            await store.update_user(connection, user_id, after)
            await store.raise_token_version(connection, user_id)
            key_ids = await key_store.touch_api_keys_of_users(connection, None, [user_id])
            if remains["status"] == "suspended":
                ended = await session_store.revoke_sessions_of_user(connection, user_id, "the user was suspended")
            await append(connection, origin.by(actor), Change("user.update", user_id, None, before, after))
            user = await get_user(connection, user_id)
        await self._revocations.push(session_ids=ended, user_ids=[user_id])
        return user, await self._records.push(api_key=key_ids)


async def get_user(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> User:
    """The user, who must exist.

    Raises:
        NotFoundError: there is none.
    """
    user = await store.find_user(connection, user_id, lock=lock)
    if user is None:
        raise NotFoundError
    return user
