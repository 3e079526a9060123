"""Failed attempts to prove who one is: they lock the e-mail, and the address they come from, for a while.

An e-mail is counted whether or not anybody has it: a lock must not tell which e-mails exist.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from ias.identity.store import sign_in_attempts as store
from ias.kit.database import Database
from ias.kit.problems import TooManyRequestsError
from ias.kit.writes import regardless

FAILURES_FREE = 5
"""So many wrong passwords in a row cost an e-mail nothing; each one after doubles the wait."""
FAILURES_FREE_OF_ADDRESS = 100
"""So many cost an IP address nothing: an office shares one. Each minute gives two of them back."""
RESETS_FREE_OF_ADDRESS = 20
"""So many password resets may be asked for from an IP address; two more each minute."""
ADDRESS_FORGIVES_EVERY = timedelta(seconds=30)
LOCK_FIRST = timedelta(seconds=30)
LOCK_LONGEST = timedelta(minutes=15)
FAILURES_FORGOTTEN_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Counted:
    """What attempts are counted of. Only its digest is stored."""

    digest: str
    failures_free: int
    forgives_every: timedelta | None = None
    """After how long one failure is forgotten; None forgets all of them at the first success."""


def email_counter(email: str) -> Counted:
    """Of a normalised e-mail."""
    return Counted(hashlib.sha256(email.encode()).hexdigest(), FAILURES_FREE)


def address_counter(source_ip: str | None) -> Counted:
    """Of failures that come from an IP address."""
    digest = hashlib.sha256(f"address {_network_of(source_ip)}".encode()).hexdigest()
    return Counted(digest, FAILURES_FREE_OF_ADDRESS, ADDRESS_FORGIVES_EVERY)


def reset_counter(source_ip: str | None) -> Counted:
    """Of password resets that an IP address asks for."""
    digest = hashlib.sha256(f"resets {_network_of(source_ip)}".encode()).hexdigest()
    return Counted(digest, RESETS_FREE_OF_ADDRESS, ADDRESS_FORGIVES_EVERY)


def _network_of(source_ip: str | None) -> str:
    """An IPv4 address; of IPv6 the network of 64 bits, which one customer has."""
    name = source_ip or "unknown"
    try:
        address = ip_address(name)
        if isinstance(address, IPv6Address) and not address.ipv4_mapped:
            name = str(ip_network((address, 64), strict=False))
    except ValueError:
        pass  # a Unix socket, or a test; counted under its name
    return name


class SignInAttempts:
    """Counts failures and refuses further attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def refuse_if_locked(self, counted: Sequence[Counted]) -> None:
        """Return when none of these is locked.

        Raises:
            TooManyRequestsError: saying how long to wait.
        """
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            for one in counted:
                attempts = await store.find_attempts(connection, one.digest)
                if attempts and attempts.locked_until is not None and attempts.locked_until > now:
                    raise _locked(attempts.locked_until - now)

    async def count(self, counted: Sequence[Counted]) -> None:
        """One more attempt of each that failed, or that costs something; it may lock what it is counted of.

        It stays counted whatever becomes of the request.
        """
        await regardless(lambda: self._count(counted))

    async def forget(self, counted: Counted) -> None:
        """Somebody has proved who they are."""
        async with self._database.transaction() as connection:
            await store.delete_attempts(connection, counted.digest)

    async def _count(self, counted: Sequence[Counted]) -> None:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await store.delete_attempts_before(connection, now - FAILURES_FORGOTTEN_AFTER)
            for one in sorted(
                counted, key=lambda one: one.digest
            ):  # in one order: two who count never wait for each other
                before = await store.lock_attempts(connection, one.digest, now)
                failures = before.failures - _forgiven(one, now - before.last_at) + 1
                if one.forgives_every is not None:
                    failures = min(max(failures, 1), one.failures_free)
                is_locked = failures >= one.failures_free
                locked_until = now + lock_duration(failures - one.failures_free) if is_locked else None
                counted_now = replace(before, failures=failures, last_at=now, locked_until=locked_until)
                await store.update_attempts(connection, counted_now)


def lock_duration(failures_beyond: int) -> timedelta:
    """How long something is locked after so many failures beyond the free ones."""
    return min(LOCK_FIRST * (1 << min(failures_beyond, 10)), LOCK_LONGEST)


def _forgiven(counted: Counted, since_last: timedelta) -> int:
    if counted.forgives_every is None:
        return 0
    return max(0, since_last // counted.forgives_every)


def _locked(wait: timedelta) -> TooManyRequestsError:
    return TooManyRequestsError(
        "Too many failed attempts. Wait before trying again.",
        code="too_many_attempts",
        headers={"Retry-After": str(int(wait.total_seconds()) + 1)},
    )
