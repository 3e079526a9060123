"""Sessions: signing in, staying signed in with rotating refresh tokens, signing out."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.access_tokens import AccessToken, AccessTokens
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.passwords import Passwords
from ias.identity.core.users import normalize_email
from ias.identity.store import members as member_store
from ias.identity.store import sessions as store
from ias.identity.store import sign_in_attempts as attempt_store
from ias.identity.store import users as user_store
from ias.identity.store.sessions import Session
from ias.identity.store.users import User
from ias.kit.database import Database
from ias.kit.problems import TooManyRequestsError, UnauthenticatedError
from ias.kit.tokens import Claims

REFRESH_TOKEN_PREFIX = "ias-rt-"  # noqa: S105  # what a leak scanner looks for; not a secret
FAILURES_FREE = 5
"""So many wrong passwords in a row cost nothing; each one after doubles the wait."""
LOCK_FIRST = timedelta(seconds=30)
LOCK_LONGEST = timedelta(minutes=15)
FAILURES_FORGOTTEN_AFTER = timedelta(days=1)
ENDED_SESSIONS_KEPT = timedelta(days=7)
_USER_AGENT_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client holds after signing in or refreshing. The refresh token works once."""

    session: Session
    access_token: AccessToken
    refresh_token: str


class Sessions:
    """Each session is a family of refresh tokens: only the newest may be used, and using an older one ends the session."""

    def __init__(
        self, database: Database, passwords: Passwords, access_tokens: AccessTokens, *, lifetime: timedelta
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._access_tokens = access_tokens
        self._lifetime = lifetime

    async def sign_in(self, email: str, password: str, origin: Origin) -> SignedIn:
        """A new session. An e-mail that nobody has costs the same work and gets the same answer as a wrong password.

        Raises:
            UnauthenticatedError: not the right e-mail and password, or the user is suspended.
            TooManyRequestsError: too many wrong passwords; the answer says how long to wait.
            InvalidError: a password of more than 72 bytes.
        """
        email = normalize_email(email)
        digest = hashlib.sha256(email.encode()).hexdigest()
        candidate = await self._find_candidate(email, digest)
        right = await self._passwords.matches(password, candidate.password_hash if candidate else None)
        if candidate is None or not right:
            await self._count_failure(digest)
            raise _wrong_credentials()
        async with self._database.transaction() as connection:
            user = await user_store.find_user(connection, candidate.id)
            if user is None or user.password_hash != candidate.password_hash:
                raise _wrong_credentials()  # changed while we were checking
            if user.status != "active":
                raise UnauthenticatedError("This account is suspended.", code="account_suspended")
            await attempt_store.delete_attempts(connection, digest)
            now = datetime.now(UTC)
            await store.delete_sessions_expired_before(connection, user.id, now - ENDED_SESSIONS_KEPT)
            session = await store.insert_session(
                connection,
                {
                    "id": uuid7(),
                    "user_id": user.id,
                    "created_at": now,
                    "expires_at": now + self._lifetime,
                    "source_ip": origin.source_ip,
                    "user_agent": (origin.user_agent or "")[:_USER_AGENT_CHARACTERS_MAX] or None,
                },
            )
            signed_in = await self._issue(connection, user, session)
            await append(connection, origin.by_user(user.id), Change("session.create", session.id))
        return signed_in

    async def refresh(self, refresh_token: str, origin: Origin) -> SignedIn:
        """New tokens for the session, for a refresh token that is used up with this.

        Raises:
            UnauthenticatedError: unknown or expired; or used before, which ends the session: one of two users is a thief.
        """
        digest = _digest(refresh_token)
        async with self._database.transaction() as connection:
            session = await self._lock_session_of(connection, digest)
            if not await store.use_refresh_token(connection, digest):
                signed_in = None
                await store.revoke_session(connection, session.id, "a refresh token was used twice")
                change = Change("session.revoke", session.id, after={"because": "a refresh token was used twice"})
                await append(connection, origin.by_user(session.user_id), change)
            else:
                user = await user_store.find_user(connection, session.user_id)
                if user is None or user.status != "active":
                    raise _session_over()
                signed_in = await self._issue(connection, user, session)
        if signed_in is None:
            raise _session_over()
        return signed_in

    async def sign_out(self, actor: Claims, origin: Origin) -> None:
        """End the session that the caller's token belongs to. Ending an ended one is no error."""
        if actor.session_id is None:
            raise UnauthenticatedError
        session_id = UUID(actor.session_id)
        async with self._database.transaction() as connection:
            session = await store.find_session(connection, session_id, lock=True)
            if session is None or session.revoked_at is not None:
                return
            await store.revoke_session(connection, session_id, "signed out")
            await append(connection, origin.by(actor), Change("session.revoke", session_id))

    async def _find_candidate(self, email: str, digest: str) -> User | None:
        """Who it may be, unless the e-mail is locked. How many guesses may race each other is bounded by `Passwords`."""
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            attempts = await attempt_store.find_attempts(connection, digest)
            if attempts and attempts.locked_until is not None and attempts.locked_until > now:
                wait_s = int((attempts.locked_until - now).total_seconds()) + 1
                raise TooManyRequestsError(
                    "Too many wrong passwords. Wait before trying again.",
                    code="too_many_attempts",
                    headers={"Retry-After": str(wait_s)},
                )
            # Nobody can have an e-mail that is not printable, and PostgreSQL would not take a NUL.
            return await user_store.find_user_by_email(connection, email) if email.isprintable() else None

    async def _count_failure(self, digest: str) -> None:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await attempt_store.delete_attempts_before(connection, now - FAILURES_FORGOTTEN_AFTER)
            attempts = await attempt_store.lock_attempts(connection, digest, now)
            failures = attempts.failures + 1
            locked_until = now + lock_duration(failures) if failures >= FAILURES_FREE else None
            counted = replace(attempts, failures=failures, last_at=now, locked_until=locked_until)
            await attempt_store.update_attempts(connection, counted)

    async def _lock_session_of(self, connection: AsyncConnection, digest: str) -> Session:
        session_id = await store.find_session_id_of_token(connection, digest)
        session = await store.find_session(connection, session_id, lock=True) if session_id else None
        if session is None or session.revoked_at is not None or session.expires_at <= datetime.now(UTC):
            raise _session_over()
        return session

    async def _issue(self, connection: AsyncConnection, user: User, session: Session) -> SignedIn:
        refresh_token = REFRESH_TOKEN_PREFIX + secrets.token_urlsafe(32)
        await store.insert_refresh_token(connection, _digest(refresh_token), session.id)
        grants = await member_store.list_grants(connection, user.id)
        access_token = await self._access_tokens.issue_to_user(connection, user, session.id, grants)
        return SignedIn(session, access_token, refresh_token)


def lock_duration(failures: int) -> timedelta:
    """How long an e-mail is locked after so many failures in a row, counted from the last free one."""
    doublings = min(failures - FAILURES_FREE, 10)
    return min(LOCK_FIRST * (1 << doublings), LOCK_LONGEST)


def _digest(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def _wrong_credentials() -> UnauthenticatedError:
    return UnauthenticatedError("The e-mail or the password is not right.", code="invalid_credentials")


def _session_over() -> UnauthenticatedError:
    return UnauthenticatedError(
        "The refresh token is not valid (any more). Sign in again.", code="invalid_refresh_token"
    )
