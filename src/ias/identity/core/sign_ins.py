"""Signing in: from the proof of who somebody is to a session."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core.audit_log import Origin
from ias.identity.core.passwords import Passwords
from ias.identity.core.sessions import Sessions, SignedIn
from ias.identity.core.sign_in_attempts import SignInAttempts, address_counter, email_counter
from ias.identity.core.users import normalize_email
from ias.identity.store import users as user_store
from ias.identity.store.users import User
from ias.kit.database import Database
from ias.kit.problems import UnauthenticatedError


class SignIns:
    """Signing in with e-mail and password."""

    def __init__(self, database: Database, passwords: Passwords, sessions: Sessions, attempts: SignInAttempts) -> None:
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._attempts = attempts

    async def sign_in(self, email: str, password: str, origin: Origin) -> SignedIn:
        """A new session. An e-mail that nobody has costs the same work and gets the same answer as a wrong password.

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
            await self._attempts.count_failure([of_email, of_address])
            raise _wrong_credentials()
        async with self._database.transaction() as connection:
            user = await _confirm(connection, candidate)
            signed_in = await self._sessions.open(connection, user, origin, method="password")
        await self._attempts.forget(of_email)
        return signed_in

    async def _find_user(self, email: str) -> User | None:
        async with self._database.transaction() as connection:
            # Nobody can have an e-mail that is not printable, and PostgreSQL would not take a NUL.
            return await user_store.find_user_by_email(connection, email) if email.isprintable() else None


async def _confirm(connection: AsyncConnection, candidate: User) -> User:
    """The user whose password was right, as they are now."""
    user = await user_store.find_user(connection, candidate.id)
    if user is None or user.password_hash != candidate.password_hash:
        raise _wrong_credentials()  # changed while we were checking
    if user.status != "active":
        raise UnauthenticatedError("This account is suspended.", code="account_suspended")
    return user


def _wrong_credentials() -> UnauthenticatedError:
    return UnauthenticatedError("The e-mail or the password is not right.", code="invalid_credentials")
