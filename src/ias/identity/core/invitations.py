"""Invitations: the way into an org for somebody who agrees to it, by a link that is sent to their e-mail.

The link works once and for a week. Whoever opens it has the e-mail: a user who is signed in as it joins, anybody else makes a
user of it first. An account of the e-mail that nobody had confirmed is handed to them then: being signed in to it proves nothing,
as whoever made it knows its password. Who sends or withdraws an invitation may give no more than they hold themselves; who sent it
last must hold that much still when it is accepted, so that nobody who was put out has a way back in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.identity.core import users
from ias.identity.core.account_claims import claim_account
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.link_tokens import LinkTokens
from ias.identity.core.mails import Mails
from ias.identity.core.members import has_power_still, lock_org, require_power
from ias.identity.core.org_rules import check_may_join
from ias.identity.core.passwords import Passwords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import invitations as store
from ias.identity.store import members as member_store
from ias.identity.store import orgs as org_store
from ias.identity.store import users as user_store
from ias.identity.store.invitations import Invitation
from ias.identity.store.orgs import Org
from ias.identity.store.users import User
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.mail import Mail, on_one_line
from ias.kit.problems import ConflictError, ForbiddenError, NotFoundError, TooManyRequestsError
from ias.kit.tokens import Claims
from ias.kit.writes import check_version

LIFETIME = timedelta(days=7)
RESEND_AFTER = timedelta(minutes=1)
PENDING_MAX = 500
"""Open invitations of one org at most."""
SENT_A_DAY_MAX = 1000
"""Invitations that leave one org within a day at most, withdrawn ones too: nobody is flooded with mail in the platform's name."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the holder of a link may know of its invitation."""

    invitation: Invitation
    org_name: str
    has_account: bool
    """Whether to sign in with it, rather than to choose a password for it."""


class Invitations:
    """Sending, seeing, withdrawing and accepting invitations."""

    def __init__(
        self,
        database: Database,
        *,
        mails: Mails,
        passwords: Passwords,
        tokens: LinkTokens,
        revocations: SessionRevocations,
        public_url: str,
    ) -> None:
        self._database = database
        self._mails = mails
        self._passwords = passwords
        self._tokens = tokens
        self._revocations = revocations
        self._public_url = public_url

    async def create(self, access: Access, org_id: UUID, email: str, role: Role, origin: Origin) -> Invitation:
        """Invite an e-mail.

        Raises:
            InvalidError: it is none.
            ForbiddenError: the role holds something that the caller does not.
            ConflictError: a member has it, it has an open invitation, or too many are open.
            TooManyRequestsError: it was sent one a moment ago, or the org sent too many today.
        """
        scope = access.in_org(str(org_id))
        email = users.check_email(email)
        text, digest = self._tokens.make()
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            org = await lock_org(connection, org_id)
            check_may_join(org, email)
            await require_power(connection, scope, role)
            user = await user_store.find_user_by_email(connection, email)
            if user and await member_store.find_member(connection, scope, user.id):
                raise ConflictError("They are a member already.", code="already_member")
            await store.revoke_expired(connection, org_id, email, now)
            if await store.is_pending(connection, scope, email):
                raise ConflictError("They are invited already; send it again instead.", code="already_invited")
            if await store.count_pending(connection, scope) >= PENDING_MAX:
                raise ConflictError(f"{PENDING_MAX} invitations are open; withdraw some first.", code="too_many")
            await _check_not_flooding(connection, scope, email, now)
            sender = UUID(scope.actor.sub)
            values = {"id": uuid7(), "org_id": org_id, "email": email, "role": role, "token_digest": digest}
            times = {"expires_at": now + LIFETIME, "sent_at": now, "created_at": now, "updated_at": now}
            made = await store.insert_invitation(
                connection, {**values, **times, "created_by": sender, "sent_by": sender}
            )
            await self._mails.queue(connection, self._write(made, org, text))
            change = Change("invitation.create", made.id, org_id, after=_describe(made))
            await append(connection, origin.by(scope.actor), change)
        return made

    async def list_invitations(
        self, access: Access, org_id: UUID, *, after: UUID | None, limit: int
    ) -> Sequence[Invitation]:
        """Invitations into an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            if await org_store.find_org(connection, org_id) is None:
                raise NotFoundError
            return await store.list_invitations(connection, scope, after=after, limit=limit)

    async def resend(self, access: Access, org_id: UUID, invitation_id: UUID, origin: Origin) -> Invitation:
        """Send a new link, which lives anew; the one before is void.

        Raises:
            ForbiddenError: the role holds something that the caller does not.
            ConflictError: it was accepted or withdrawn.
            TooManyRequestsError: it was sent a moment ago, or the org sent too many today.
        """
        scope = access.in_org(str(org_id))
        text, digest = self._tokens.make()
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            org = await lock_org(connection, org_id)
            invitation = await store.find_invitation(connection, scope, invitation_id, lock=True)
            if invitation is None:
                raise NotFoundError
            await require_power(connection, scope, invitation.role)
            _require_pending(invitation)
            await _check_not_flooding(connection, scope, invitation.email, now)
            sender = UUID(scope.actor.sub)
            changes = {"token_digest": digest, "expires_at": now + LIFETIME, "sent_at": now, "sent_by": sender}
            sent = await store.update_invitation(connection, invitation_id, changes)
            await self._mails.queue(connection, self._write(sent, org, text))
            await append(connection, origin.by(scope.actor), Change("invitation.resend", invitation_id, org_id))
        return sent

    async def revoke(self, access: Access, org_id: UUID, invitation_id: UUID, origin: Origin) -> None:
        """Withdraw an invitation. Withdrawing a withdrawn one is no error.

        Raises:
            ForbiddenError: the role holds something that the caller does not.
            ConflictError: it was accepted.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            invitation = await store.find_invitation(connection, scope, invitation_id, lock=True)
            if invitation is None:
                raise NotFoundError
            await require_power(connection, scope, invitation.role)
            check_version(invitation.version)
            if invitation.status == "revoked":
                return
            _require_pending(invitation)
            await store.update_invitation(connection, invitation_id, {"status": "revoked"})
            await append(connection, origin.by(scope.actor), Change("invitation.revoke", invitation_id, org_id))

    async def look_up(self, token: str) -> Offer:
        """What a link offers.

        Raises:
            NotFoundError: it was invented, has expired, or was used or withdrawn.
        """
        async with self._database.transaction() as connection:
            invitation, org = await self._find_open(connection, token)
            user = await user_store.find_user_by_email(connection, invitation.email)
        return Offer(invitation, org.name, user is not None and not _may_be_claimed(user))

    async def accept(self, actor: Claims, token: str, origin: Origin) -> Invitation:
        """The caller joins.

        Raises:
            NotFoundError: as `look_up`.
            ForbiddenError: it is for another e-mail than theirs.
            ConflictError: nobody has confirmed their e-mail: accept as a new user, with a new password.
        """
        async with self._database.transaction() as connection:
            invitation, _ = await self._find_open(connection, token, lock=True)
            user = await user_store.find_user(connection, UUID(actor.sub))
            if user is None or user.status != "active" or user.email != invitation.email:
                raise ForbiddenError("This invitation is for another e-mail than yours.", code="invitation_of_another")
            if _may_be_claimed(user):
                detail = "Nobody has shown yet to have this account's e-mail. Choose a new password with the link."
                raise ConflictError(detail, code="email_not_confirmed")
            return await self._join(connection, invitation, user, origin)

    async def accept_as_new_user(self, token: str, name: str, password: str, origin: Origin) -> Invitation:
        """Make a user of the invited e-mail, who joins; or hand its account to them, when nobody had confirmed the e-mail.

        Raises:
            NotFoundError: as `look_up`.
            ConflictError: the e-mail has an account: sign in with it, then accept.
            InvalidError: the password cannot be one.
        """
        await self.look_up(token)  # hashing takes long: not for somebody without a link
        password_hash = await self._passwords.hash(password)
        ended: list[UUID] = []
        try:
            async with self._database.transaction() as connection:
                invitation, _ = await self._find_open(connection, token, lock=True)
                user = await user_store.find_user_by_email(connection, invitation.email)
                if user is None:
                    user = await users.insert_user(
                        connection, invitation.email, password_hash, name=name, email_confirmed=True
                    )
                    change = Change("user.create", user.id, after=users.describe(user))
                elif _may_be_claimed(user):
                    ended, change = await claim_account(connection, user, password_hash, name=name)
                else:
                    raise _account_exists()
                accepted = await self._join(connection, invitation, user, origin, change)
        except IntegrityError as error:
            raise _account_exists() from error
        await self._revocations.push(session_ids=ended)
        return accepted

    async def _find_open(
        self, connection: AsyncConnection, token: str, *, lock: bool = False
    ) -> tuple[Invitation, Org]:
        digest = self._tokens.find_digest(token)
        invitation = await store.find_invitation_by_digest(connection, digest) if digest else None
        org = await org_store.find_org(connection, invitation.org_id, lock=lock) if invitation else None
        if lock and digest:  # the org first, as everybody who changes its members does; then as it is by now
            invitation = await store.find_invitation_by_digest(connection, digest, lock=True)
        if (
            invitation is None
            or org is None
            or org.status != "active"
            or invitation.status != "pending"
            or invitation.expires_at <= datetime.now(UTC)
            or not await has_power_still(connection, org.id, invitation.sent_by, invitation.role)
        ):
            raise NotFoundError(
                "This invitation is not valid (any more). Ask for a new one.", code="invalid_invitation"
            )
        return invitation, org

    async def _join(
        self, connection: AsyncConnection, invitation: Invitation, user: User, origin: Origin, *changes: Change
    ) -> Invitation:
        now = datetime.now(UTC)
        member = {"id": uuid7(), "org_id": invitation.org_id, "user_id": user.id, "role": invitation.role}
        joined = await member_store.insert_member_if_absent(
            connection, {**member, "created_at": now, "updated_at": now}
        )
        accepted = await store.update_invitation(
            connection, invitation.id, {"status": "accepted", "accepted_by": user.id}
        )
        found = [*changes, Change("invitation.accept", invitation.id, invitation.org_id)]
        if joined:
            after = {"email": user.email, "role": invitation.role}
            found.append(Change("member.create", user.id, invitation.org_id, after=after))
        await append(connection, origin.by_user(user.id), *found)
        return accepted

    def _write(self, invitation: Invitation, org: Org, token: str) -> Mail:
        name = on_one_line(org.name)
        # The token is behind the #: browsers send that part to no server, so it is in no access log.
        link = f"{self._public_url}/accept-invitation#token={token}"
        text = (
            f"You are invited to {name} as {invitation.role.value}.\n\nAccept here:\n{link}\n\n"
            f"The link works once, until {invitation.expires_at:%Y-%m-%d %H:%M} UTC. "
            "If you did not expect this, ignore it.\n"
        )
        return Mail(invitation.email, f"Invitation to {name}", text)


async def _check_not_flooding(connection: AsyncConnection, scope: OrgScope, email: str, now: datetime) -> None:
    last = await store.find_last_sent(connection, scope, email)
    if last is not None and last + RESEND_AFTER > now:
        wait_s = int((last + RESEND_AFTER - now).total_seconds()) + 1
        raise TooManyRequestsError("It was sent a moment ago.", headers={"Retry-After": str(wait_s)})
    if await store.count_sent_since(connection, scope, now - timedelta(days=1)) >= SENT_A_DAY_MAX:
        detail = f"The org sent {SENT_A_DAY_MAX} invitations within a day."
        raise TooManyRequestsError(detail, headers={"Retry-After": "3600"})


def _may_be_claimed(user: User) -> bool:
    return user.email_confirmed_at is None and user.status == "active"


def _account_exists() -> ConflictError:
    return ConflictError("There is an account with this e-mail: sign in, then accept.", code="account_exists")


def _require_pending(invitation: Invitation) -> None:
    if invitation.status != "pending":
        raise ConflictError(f"The invitation is {invitation.status}.", code="not_pending")


def _describe(invitation: Invitation) -> dict[str, str]:
    return {"email": invitation.email, "role": invitation.role.value, "expires_at": invitation.expires_at.isoformat()}
