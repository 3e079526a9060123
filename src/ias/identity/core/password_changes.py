"""Changing a password one knows, and setting one by a link that is sent to one's e-mail.

Asking for a link is the same work and the same answer whether or not anybody has the e-mail.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.account_claims import claim_account
from ias.identity.core.audit_log import Cause, Change, Origin, append
from ias.identity.core.link_tokens import LinkTokens
from ias.identity.core.mails import Mails
from ias.identity.core.passwords import Passwords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.core.sign_in_attempts import SignInAttempts, email_counter, reset_counter
from ias.identity.core.users import normalize_email
from ias.identity.store import password_resets as store
from ias.identity.store import second_factors as factor_store
from ias.identity.store import sessions as session_store
from ias.identity.store import sign_in_challenges as challenge_store
from ias.identity.store import users as user_store
from ias.identity.store.users import User
from ias.kit.database import Database
from ias.kit.mail import Mail
from ias.kit.problems import ForbiddenError, InvalidError, NotFoundError, UnauthenticatedError
from ias.kit.tokens import Claims

RESET_LIFETIME = timedelta(minutes=30)
RESETS_MAX = 3
"""Links for one e-mail that may be open at a time; whoever asks for more gets none, and the same answer."""
_EMAIL_KEPT_CHARACTERS = 254


class PasswordChanges:
    """Changing and resetting passwords. Both end sessions: whoever else knew the password is out."""

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords,
        attempts: SignInAttempts,
        revocations: SessionRevocations,
        mails: Mails,
        tokens: LinkTokens,
        public_url: str,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._revocations = revocations
        self._mails = mails
        self._tokens = tokens
        self._public_url = public_url

    async def require_password(self, actor: Claims, password: str | None) -> User:
        """The caller, who has just proved once more who they are. A user without a password has nothing to prove it with.

        Raises:
            ForbiddenError: it is not their password.
            TooManyRequestsError: too many were not.
            UnauthenticatedError: they are suspended.
        """
        async with self._database.transaction() as connection:
            user = await user_store.find_user(connection, UUID(actor.sub))
        if user is None or user.status != "active":
            raise UnauthenticatedError
        if user.password_hash is not None:
            counter = email_counter(user.email)
            await self._attempts.refuse_if_locked([counter])
            if not await self._passwords.matches(password or "", user.password_hash):
                await self._attempts.count([counter])
                raise ForbiddenError("This is not your password.", code="wrong_password")
        return user

    async def change(self, actor: Claims, current: str, new: str, origin: Origin) -> None:
        """Give the caller another password, and end their other sessions.

        Raises:
            ForbiddenError: the current one is wrong, or they have none: a reset gives them one.
            InvalidError: the new one cannot be one, or is the current one.
        """
        user = await self.require_password(actor, current)
        if user.password_hash is None:
            raise ForbiddenError("You have no password yet; reset it to get one.", code="no_password")
        if await self._passwords.matches(new, user.password_hash):
            raise InvalidError("The new password is the current one.", code="invalid_password")
        new_hash = await self._passwords.hash(new)
        current_session = UUID(actor.session_id) if actor.session_id else None
        async with self._database.transaction() as connection:
            if not await user_store.replace_password(connection, user.id, user.password_hash, new_hash):
                raise ForbiddenError(
                    "This is not your password.", code="wrong_password"
                )  # changed while we were checking
            ended = await self._end_access(connection, user, "the password was changed", but=current_session)
            await append(connection, origin.by(actor), Change("user.change_password", user.id))
        await self._revocations.push(session_ids=ended)

    async def ask_for_reset(self, email: str, origin: Origin) -> None:
        """Send a link to the e-mail, if somebody has it.

        Raises:
            TooManyRequestsError: too many were asked for from this address.
        """
        counter = reset_counter(origin.source_ip)
        await self._attempts.refuse_if_locked([counter])
        await self._attempts.count([counter])
        email = normalize_email(email)[:_EMAIL_KEPT_CHARACTERS]
        if not email.isprintable():
            return
        text, digest = self._tokens.make()
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await store.delete_resets_expired_before(connection, now)
            user = await user_store.find_user_by_email(connection, email)
            is_wanted = await store.count_resets(connection, email) < RESETS_MAX
            reset_id = uuid7()
            reset = {"id": reset_id, "email": email, "token_digest": digest, "created_at": now}
            await store.insert_reset(connection, {**reset, "expires_at": now + RESET_LIFETIME})
            is_for_somebody = user is not None and user.status == "active"
            await self._mails.queue(connection, self._write(email, text) if is_for_somebody and is_wanted else None)
            cause = Cause("user", None, origin.request_id, origin.source_ip)
            await append(connection, cause, Change("password_reset.create", reset_id, after={"email": email}))

    async def complete_reset(self, token: str, password: str, origin: Origin) -> None:
        """Set the password of whoever was sent the link, and end all their sessions.

        A second factor stays, except in an account whose e-mail nobody had confirmed: whoever made it may have set it up. Where
        it stays wrong codes stay counted, too: whoever reads the mailbox must not get free guesses with each link.

        Raises:
            NotFoundError: the link was invented, has expired or was used.
            InvalidError: the password cannot be one.
        """
        digest = self._tokens.find_digest(token)
        if digest is None:
            raise _void()
        async with self._database.transaction() as connection:
            await self._find_user_of(connection, digest)  # hashing takes long: not for somebody without a link
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as connection:
            # Locked before anything else: of two links of one e-mail each would wait for the other to be deleted.
            user = await self._find_user_of(connection, digest, lock=True)
            if not await store.use_reset(connection, digest, user.email):
                raise _void()
            changes = [Change("user.reset_password", user.id)]
            if user.email_confirmed_at is None:
                ended, claimed = await claim_account(connection, user, password_hash)
                changes.append(claimed)
            else:
                await user_store.set_password(connection, user.id, password_hash)
                ended = await self._end_access(connection, user, "the password was reset")
            factor = await factor_store.find_second_factor(connection, user.id)
            await append(connection, origin.by_user(user.id), *changes)
        if factor is None or factor.confirmed_at is None:
            await self._attempts.forget(email_counter(user.email))
        await self._revocations.push(session_ids=ended)

    async def _find_user_of(self, connection: AsyncConnection, digest: str, *, lock: bool = False) -> User:
        email = await store.find_email_of_reset(connection, digest, datetime.now(UTC))
        user = await user_store.find_user_by_email(connection, email, lock=lock) if email else None
        if user is None or user.status != "active":
            raise _void()
        return user

    async def _end_access(
        self, connection: AsyncConnection, user: User, because: str, *, but: UUID | None = None
    ) -> list[UUID]:
        await store.delete_resets_of(connection, user.email)
        await challenge_store.delete_challenges_of(connection, user.id)
        return await session_store.revoke_sessions_of_user(connection, user.id, because, but=but)

    def _write(self, email: str, token: str) -> Mail:
        # The token is behind the #: browsers send that part to no server, so it is in no access log.
        link = f"{self._public_url}/reset-password#token={token}"
        text = (
            f"Somebody, hopefully you, wants to set a new password for {email}.\n\nSet it here:\n{link}\n\n"
            f"The link works once, for {RESET_LIFETIME.seconds // 60} minutes. If it was not you, ignore it.\n"
        )
        return Mail(email, "Set a new password", text)


def _void() -> NotFoundError:
    return NotFoundError("This link is not valid (any more). Ask for a new one.", code="invalid_password_reset")
