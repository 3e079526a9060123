"""Sessions: staying signed in with rotating refresh tokens, seeing where one is signed in, signing out.

How somebody gets a session is `sign_ins`'.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.access_tokens import AccessToken, AccessTokens
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.grants import list_usable_roles
from ias.identity.core.members import require_power_over
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import members as member_store
from ias.identity.store import sessions as store
from ias.identity.store import users as user_store
from ias.identity.store.sessions import Session
from ias.identity.store.users import User
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ForbiddenError, NotFoundError, UnauthenticatedError
from ias.kit.tokens import Claims

REFRESH_TOKEN_PREFIX = "ias-rt-"  # noqa: S105  # what a leak scanner looks for; not a secret
REUSE_GRACE = timedelta(seconds=10)
"""How long after its use a browser may come once more with the same refresh token: its other tab was faster."""
ENDED_SESSIONS_KEPT = timedelta(days=7)
_USER_AGENT_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client holds after signing in or refreshing. The refresh token works once."""

    session: Session
    access_token: AccessToken
    refresh_token: str | None
    """None where the client has been given the next one already."""


class Sessions:
    """Each session is a family of refresh tokens: only the newest may be used, and using an older one ends the session."""

    def __init__(
        self, database: Database, access_tokens: AccessTokens, revocations: SessionRevocations, *, lifetime: timedelta
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._revocations = revocations
        self._lifetime = lifetime

    async def open(self, connection: AsyncConnection, user: User, origin: Origin, *, method: str) -> SignedIn:
        """A new session of somebody who has proved who they are. Writes the audit entry: the last thing in a transaction."""
        now = datetime.now(UTC)
        await store.delete_sessions_expired_before(connection, user.id, now - ENDED_SESSIONS_KEPT)
        session = await store.insert_session(
            connection,
            {
                "id": uuid7(),
                "user_id": user.id,
                "created_at": now,
                "last_used_at": now,
                "expires_at": now + self._lifetime,
                "source_ip": origin.source_ip,
                "user_agent": (origin.user_agent or "")[:_USER_AGENT_CHARACTERS_MAX] or None,
            },
        )
        signed_in = await self._issue(connection, user, session, origin)
        await append(connection, origin.by_user(user.id), Change("session.create", session.id, after={"by": method}))
        return signed_in

    async def refresh(self, refresh_token: str, origin: Origin, *, shared: bool) -> SignedIn:
        """New tokens for the session, for a refresh token that is used up with this.

        `shared` says that the token came from a browser, whose tabs use one token without knowing of each other: the one that
        comes a moment late gets an access token and no refresh token, so that there is still only one line of them.

        Raises:
            UnauthenticatedError: unknown or expired; or used before, which ends the session: one of two users is a thief.
        """
        digest = _digest(refresh_token)
        async with self._database.transaction() as connection:
            session = await self._lock_session_of(connection, digest)
            if await store.use_refresh_token(connection, digest):
                await store.touch_session(connection, session.id)
                signed_in = await self._renew(connection, session, origin, rotate=True)
            elif shared and await store.was_just_used(connection, digest, REUSE_GRACE):
                signed_in = await self._renew(connection, session, origin, rotate=False)
            else:
                signed_in = None
                because = "a refresh token was used twice"
                await store.revoke_session(connection, session.id, because)
                change = Change("session.revoke", session.id, after={"because": because})
                await append(connection, origin.by_user(session.user_id), change)
        if signed_in is None:
            await self._revocations.push(session_ids=[session.id])
            raise _session_over()
        return signed_in

    async def list_own(self, actor: Claims, *, after: UUID | None, limit: int) -> list[Session]:
        """Where the caller is signed in, newest first."""
        async with self._database.transaction() as connection:
            return await store.list_sessions_of_user(connection, UUID(actor.sub), after=after, limit=limit)

    async def sign_out(self, actor: Claims, origin: Origin) -> None:
        """End the session that the caller's token belongs to. Ending an ended one is no error."""
        if actor.session_id is None:
            raise UnauthenticatedError
        await self._end(actor, UUID(actor.session_id), "signed out", origin)

    async def revoke_own(self, actor: Claims, session_id: UUID, origin: Origin) -> None:
        """End one of the caller's sessions. Ending an ended one is no error.

        Raises:
            NotFoundError: the caller has none of that id.
        """
        await self._end(actor, session_id, "revoked by its user", origin)

    async def revoke_others(self, actor: Claims, origin: Origin) -> int:
        """End all of the caller's sessions but the one that asks; how many there were."""
        if actor.session_id is None:
            raise UnauthenticatedError
        async with self._database.transaction() as connection:
            ended = await store.revoke_sessions_of_user(
                connection, UUID(actor.sub), "revoked by its user", but=UUID(actor.session_id)
            )
            if ended:
                await append(connection, origin.by(actor), *(Change("session.revoke", one) for one in ended))
        await self._revocations.push(session_ids=ended)
        return len(ended)

    async def list_of_member(
        self, access: Access, org_id: UUID, user_id: UUID, *, after: UUID | None, limit: int
    ) -> list[Session]:
        """Where a member is signed in, newest first.

        Raises:
            ForbiddenError: they hold something that the caller does not.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await _require_power_over(connection, scope, user_id)
            return await store.list_sessions_of_user(connection, user_id, after=after, limit=limit)

    async def revoke_of_member(self, access: Access, org_id: UUID, user_id: UUID, origin: Origin) -> None:
        """Sign a member out everywhere. Raises as `list_of_member` does."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await _require_power_over(connection, scope, user_id)
            ended = await store.revoke_sessions_of_user(connection, user_id, "revoked by an administrator")
            if ended:
                after = {"sessions_revoked": len(ended)}
                await append(
                    connection, origin.by(scope.actor), Change("member.sign_out", user_id, org_id, after=after)
                )
        await self._revocations.push(session_ids=ended)

    async def _end(self, actor: Claims, session_id: UUID, because: str, origin: Origin) -> None:
        async with self._database.transaction() as connection:
            session = await store.find_session(connection, session_id, lock=True)
            if session is None or session.user_id != UUID(actor.sub):
                raise NotFoundError
            if session.revoked_at is None:
                await store.revoke_session(connection, session_id, because)
                await append(connection, origin.by(actor), Change("session.revoke", session_id))
        await self._revocations.push(session_ids=[session_id])

    async def _lock_session_of(self, connection: AsyncConnection, digest: str) -> Session:
        session_id = await store.find_session_id_of_token(connection, digest)
        session = await store.find_session(connection, session_id, lock=True) if session_id else None
        if session is None or session.revoked_at is not None or session.expires_at <= datetime.now(UTC):
            raise _session_over()
        return session

    async def _renew(self, connection: AsyncConnection, session: Session, origin: Origin, *, rotate: bool) -> SignedIn:
        user = await user_store.find_user(connection, session.user_id)
        if user is None or user.status != "active":
            raise _session_over()
        return await self._issue(connection, user, session, origin, rotate=rotate)

    async def _issue(
        self, connection: AsyncConnection, user: User, session: Session, origin: Origin, *, rotate: bool = True
    ) -> SignedIn:
        refresh_token = None
        if rotate:
            refresh_token = REFRESH_TOKEN_PREFIX + secrets.token_urlsafe(32)
            await store.insert_refresh_token(connection, _digest(refresh_token), session.id)
        # After the user, whose token version must not be newer than the grants that the token shows.
        roles = await list_usable_roles(connection, user, origin.source_ip)
        access_token = await self._access_tokens.issue_to_user(connection, user, session.id, roles)
        return SignedIn(session, access_token, refresh_token)


async def _require_power_over(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> None:
    member = await member_store.find_member(connection, scope, user_id)
    if member is None:
        raise NotFoundError
    await require_power_over(connection, scope, member)
    user = await user_store.find_user(connection, user_id)
    if user is not None and user.platform_admin and not scope.actor.platform_admin:
        raise ForbiddenError("They administer the platform.")


def _digest(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def _session_over() -> UnauthenticatedError:
    return UnauthenticatedError(
        "The refresh token is not valid (any more). Sign in again.", code="invalid_refresh_token"
    )
