"""The second factor: time-based codes (RFC 6238), and recovery codes for whoever lost the device.

A code works once. The secret is sealed, as it must be read to check a code; recovery codes are stored as digests.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pyotp
from pyotp.utils import strings_equal
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.password_changes import PasswordChanges
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.core.sign_in_attempts import SignInAttempts, email_counter
from ias.identity.store import second_factors as store
from ias.identity.store import sessions as session_store
from ias.identity.store import sign_in_challenges as challenge_store
from ias.identity.store import users as user_store
from ias.identity.store.second_factors import SecondFactor
from ias.kit.access import Access
from ias.kit.database import Database
from ias.kit.problems import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from ias.kit.sealing import Sealer
from ias.kit.tokens import Claims

STEP_S = 30
STEPS_AROUND = 1
"""So many steps a clock may be ahead or behind."""
RECOVERY_CODES = 10
_RECOVERY_ALPHABET = "abcdefghjkmnpqrstvwxyz0123456789"
"""32 letters, none of which is taken for another (Crockford's base 32); a code has 16, 80 bits."""
ISSUER = "IAS"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app is shown, once."""

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class SecondFactorState:
    """Whether somebody has a second factor."""

    enabled: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


class SecondFactors:
    """Setting up, using and giving up a second factor."""

    def __init__(
        self,
        database: Database,
        *,
        attempts: SignInAttempts,
        password_changes: PasswordChanges,
        revocations: SessionRevocations,
        sealer: Sealer,
    ) -> None:
        self._database = database
        self._revocations = revocations
        self._attempts = attempts
        self._password_changes = password_changes
        self._sealer = sealer

    async def get_state(self, actor: Claims) -> SecondFactorState:
        """The caller's."""
        async with self._database.transaction() as connection:
            factor = await store.find_second_factor(connection, UUID(actor.sub))
            left = await store.count_recovery_codes(connection, UUID(actor.sub))
        confirmed_at = factor.confirmed_at if factor else None
        return SecondFactorState(confirmed_at is not None, confirmed_at, left)

    async def enrol(self, actor: Claims, password: str | None, origin: Origin) -> Enrolment:
        """A new secret, which counts once a code of it was given. One that was not confirmed is replaced.

        Raises:
            ForbiddenError: not their password.
            ConflictError: they have a second factor: it must be given up first.
        """
        user = await self._password_changes.require_password(actor, password)
        secret = pyotp.random_base32()
        async with self._database.transaction() as connection:
            now = await user_store.find_user(connection, user.id, lock=True)
            if now is None or now.password_hash != user.password_hash:  # changed while it was being checked
                raise ForbiddenError("This is not your password.", code="wrong_password")
            factor = await store.find_second_factor(connection, user.id, lock=True)
            if factor is not None and factor.confirmed_at is not None:
                raise ConflictError("There is a second factor; give it up first.", code="second_factor_exists")
            await store.put_second_factor(connection, user.id, self._sealer.seal(secret), datetime.now(UTC))
            await append(connection, origin.by(actor), Change("second_factor.enrol", user.id))
        return Enrolment(
            secret, pyotp.TOTP(secret, interval=STEP_S).provisioning_uri(name=user.email, issuer_name=ISSUER)
        )

    async def confirm(self, actor: Claims, code: str, origin: Origin) -> list[str]:
        """Require the second factor from now on; the recovery codes, shown once.

        Raises:
            ForbiddenError: a wrong code.
            ConflictError: nothing was set up, or it was confirmed before.
        """
        user_id = UUID(actor.sub)
        await self._refuse_if_locked(user_id)
        async with self._database.transaction() as connection:
            factor = await store.find_second_factor(connection, user_id, lock=True)
            if factor is None or factor.confirmed_at is not None:
                raise ConflictError("There is nothing to confirm.", code="nothing_to_confirm")
            step = self._find_step(factor, code)
            if step is not None:
                await store.use_step(connection, user_id, step, confirmed_at=datetime.now(UTC))
                codes = await _renew_recovery_codes(connection, user_id)
                await append(connection, origin.by(actor), Change("second_factor.confirm", user_id))
                return codes
        raise await self._count_wrong(user_id)

    async def renew_recovery_codes(self, actor: Claims, code: str, origin: Origin) -> list[str]:
        """New recovery codes, shown once; the old ones are void. Raises as `give_up`."""
        user_id = UUID(actor.sub)
        await self._require_code(user_id, code)
        async with self._database.transaction() as connection:
            codes = await _renew_recovery_codes(connection, user_id)
            await append(connection, origin.by(actor), Change("second_factor.renew_recovery_codes", user_id))
        return codes

    async def give_up(self, actor: Claims, password: str | None, code: str, origin: Origin) -> None:
        """Sign in with the password alone from now on.

        Raises:
            ForbiddenError: not their password, or a wrong code.
            TooManyRequestsError: too many were wrong.
        """
        user = await self._password_changes.require_password(actor, password)
        await self._require_code(user.id, code)
        async with self._database.transaction() as connection:
            await store.delete_second_factor(connection, user.id)
            await append(connection, origin.by(actor), Change("second_factor.delete", user.id))

    async def reset(self, access: Access, user_id: UUID, origin: Origin) -> None:
        """Take the second factor from somebody who lost it, with their sessions: whoever found the device has one, perhaps.

        Raises:
            ForbiddenError: the caller does not administer the platform.
            NotFoundError: there is no such user, or they have none.
        """
        actor = access.on_platform()
        async with self._database.transaction() as connection:
            factor = await store.find_second_factor(connection, user_id, lock=True)
            if factor is None:
                raise NotFoundError
            await store.delete_second_factor(connection, user_id)
            await challenge_store.delete_challenges_of(connection, user_id)
            ended = await session_store.revoke_sessions_of_user(connection, user_id, "the second factor was reset")
            await append(connection, origin.by(actor), Change("second_factor.reset", user_id))
        await self._revocations.push(session_ids=ended)

    async def use(self, connection: AsyncConnection, user_id: UUID, code: str) -> str | None:
        """Use a code up: `totp`, `recovery code`, or None when it is neither (any more)."""
        factor = await store.find_second_factor(connection, user_id, lock=True)
        if factor is None or factor.confirmed_at is None:
            return None
        step = self._find_step(factor, code)
        if step is not None:
            await store.use_step(connection, user_id, step)
            return "totp"
        if await store.use_recovery_code(connection, user_id, _digest(code)):
            return "recovery code"
        return None

    def _find_step(self, factor: SecondFactor, code: str) -> int | None:
        """The step that a code is of, if it is later than any that was used."""
        digits = "".join(code.split())
        totp = pyotp.TOTP(self._sealer.open(factor.sealed_secret), interval=STEP_S)
        now = int(datetime.now(UTC).timestamp()) // STEP_S
        found = None
        for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
            if strings_equal(totp.generate_otp(step), digits) and step > (factor.last_used_step or 0):
                found = step
        return found

    async def _require_code(self, user_id: UUID, code: str) -> None:
        await self._refuse_if_locked(user_id)
        async with self._database.transaction() as connection:
            used = await self.use(connection, user_id, code)
        if used is None:
            raise await self._count_wrong(user_id)

    async def _refuse_if_locked(self, user_id: UUID) -> None:
        await self._attempts.refuse_if_locked([email_counter(await self._get_email(user_id))])

    async def _count_wrong(self, user_id: UUID) -> ForbiddenError:
        await self._attempts.count([email_counter(await self._get_email(user_id))])
        return ForbiddenError("The code is wrong, or was used.", code="wrong_code")

    async def _get_email(self, user_id: UUID) -> str:
        async with self._database.transaction() as connection:
            user = await user_store.find_user(connection, user_id)
        if user is None:
            raise UnauthenticatedError
        return user.email


async def _renew_recovery_codes(connection: AsyncConnection, user_id: UUID) -> list[str]:
    codes = ["-".join(_random_letters(4) for _ in range(4)) for _ in range(RECOVERY_CODES)]
    await store.replace_recovery_codes(connection, user_id, [_digest(code) for code in codes])
    return codes


def _random_letters(count: int) -> str:
    return "".join(secrets.choice(_RECOVERY_ALPHABET) for _ in range(count))


def _digest(recovery_code: str) -> str:
    """Of the letters and digits alone, in any case."""
    plain = "".join(character for character in recovery_code.casefold() if character.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()
