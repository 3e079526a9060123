"""Signing in: from the proofs of who somebody is to a session.

The password comes first. Whoever set up a second factor is then given a challenge, which waits a few minutes for the code; no
session exists before. Wrong codes count like wrong passwords, and only the last proof makes them forgotten.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core.audit_log import Origin
from ias.identity.core.link_tokens import LinkTokens
from ias.identity.core.passwords import Passwords
from ias.identity.core.second_factors import SecondFactors
from ias.identity.core.sessions import Sessions, SignedIn
from ias.identity.core.sign_in_attempts import SignInAttempts, address_counter, email_counter
from ias.identity.core.users import normalize_email
from ias.identity.store import second_factors as factor_store
from ias.identity.store import sign_in_challenges as challenge_store
from ias.identity.store import users as user_store
from ias.identity.store.users import User
from ias.kit.database import Database
from ias.kit.problems import UnauthenticatedError

CHALLENGE_LIFETIME = timedelta(minutes=5)
CHALLENGE_TRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class Challenge:
    """The password was right; a code is wanted as well."""

    token: str
    expires_at: datetime


class SignIns:
    """Signing in with e-mail and password, and a code where one is wanted."""

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords,
        sessions: Sessions,
        attempts: SignInAttempts,
        second_factors: SecondFactors,
        tokens: LinkTokens,
    ) -> None:
        self._second_factors = second_factors
        self._tokens = tokens
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._attempts = attempts

    async def sign_in(self, email: str, password: str, origin: Origin) -> SignedIn | Challenge:
        """A new session, or the challenge to give a code.

        An e-mail that nobody has costs the same work and gets the same answer as a wrong password.

        Raises:
            UnauthenticatedError: not the right e-mail and password, or the user is suspended.
            TooManyRequestsError: too many failures of the e-mail or the address; the answer says how long to wait.
            InvalidError: a password of more than 72 bytes.
        """
        email = normalize_email(email)
        of_email, of_address = email_counter(email), address_counter(origin.source_ip)
        # How many guesses may race each other is bounded by `Passwords`.
        await self._attempts.refuse_if_locked([of_email, of_address])
        candidate = await self._find_user(email)
        right = await self._passwords.matches(password, candidate.password_hash if candidate else None)
        if candidate is None or not right:
            await self._attempts.count([of_email, of_address])
            raise _wrong_credentials()
        async with self._database.transaction() as connection:
            user = await _confirm(connection, candidate)
            factor = await factor_store.find_second_factor(connection, user.id)
            if factor is not None and factor.confirmed_at is not None:
                return await self._challenge(connection, user)
            signed_in = await self._sessions.open(connection, user, origin, method="password")
        await self._attempts.forget(of_email)
        return signed_in

    async def complete(self, token: str, code: str, origin: Origin) -> SignedIn:
        """The session, for the code that a challenge asks for.

        Raises:
            UnauthenticatedError: a wrong code, or no such challenge (any more): sign in again.
            TooManyRequestsError: too many failures of the user or the address.
        """
        digest = self._tokens.find_digest(token)
        of_address = address_counter(origin.source_ip)
        await self._attempts.refuse_if_locked([of_address])
        user = await self._find_challenged(digest) if digest else None
        if user is None or digest is None:
            await self._attempts.count([of_address])
            raise _challenge_over()
        of_email = email_counter(user.email)
        await self._attempts.refuse_if_locked([of_email])
        async with self._database.transaction() as connection:
            user = await _confirm(
                connection, user
            )  # first: whoever changes the password locks the user, then challenges
            used = await self._second_factors.use(connection, user.id, code)
            if used is not None:
                if not await challenge_store.delete_challenge(connection, digest):
                    raise _challenge_over()  # answered by another code a moment ago; this one stays good
                signed_in = await self._sessions.open(connection, user, origin, method=f"password and {used}")
        if used is None:
            await self._attempts.count([of_email, of_address])
            raise UnauthenticatedError("The code is wrong, or was used.", code="wrong_code")
        await self._attempts.forget(of_email)
        return signed_in

    async def _challenge(self, connection: AsyncConnection, user: User) -> Challenge:
        text, digest = self._tokens.make()
        now = datetime.now(UTC)
        await challenge_store.delete_challenges_expired_before(connection, now)
        values = {"token_digest": digest, "user_id": user.id, "tries": 0, "created_at": now}
        challenge = Challenge(text, now + CHALLENGE_LIFETIME)
        await challenge_store.insert_challenge(connection, {**values, "expires_at": challenge.expires_at})
        return challenge

    async def _find_challenged(self, digest: str) -> User | None:
        """Whose challenge it is, one try further; None when there is none, or it was tried too often."""
        async with self._database.transaction() as connection:
            challenge = await challenge_store.try_challenge(connection, digest, datetime.now(UTC))
            if challenge is None:
                return None
            if challenge.tries > CHALLENGE_TRIES_MAX:
                await challenge_store.delete_challenge(connection, digest)
                return None
            return await user_store.find_user(connection, challenge.user_id)

    async def _find_user(self, email: str) -> User | None:
        async with self._database.transaction() as connection:
            # Nobody can have an e-mail that is not printable, and PostgreSQL would not take a NUL.
            return await user_store.find_user_by_email(connection, email) if email.isprintable() else None


async def _confirm(connection: AsyncConnection, candidate: User) -> User:
    """The user whose password was right, as they are now. Locked: whoever changes the password finds the session, and ends it."""
    user = await user_store.find_user(connection, candidate.id, lock=True)
    if user is None or user.password_hash != candidate.password_hash:
        raise _wrong_credentials()  # changed while we were checking
    if user.status != "active":
        raise UnauthenticatedError("This account is suspended.", code="account_suspended")
    return user


def _challenge_over() -> UnauthenticatedError:
    return UnauthenticatedError("This sign-in is over. Begin again.", code="invalid_challenge")


def _wrong_credentials() -> UnauthenticatedError:
    return UnauthenticatedError("The e-mail or the password is not right.", code="invalid_credentials")
