"""What an org says of its spending in general: the time zone of its budgets, and what becomes of requests without a price."""

from dataclasses import dataclass
from uuid import UUID
from zoneinfo import available_timezones

from ias.billing.core.amounts import parse_amount
from ias.billing.core.publishing import Publishing
from ias.billing.store import published_documents, spending_settings
from ias.billing.store.spending_settings import SpendingSettings
from ias.contracts import redis_keys
from ias.contracts.money import format_usd
from ias.contracts.spending import Unpriced
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import FieldError, InvalidError
from ias.kit.writes import check_version


@dataclass(frozen=True, slots=True)
class ChangedSettings:
    """What is to be changed; None leaves it."""

    time_zone: str | None = None
    unpriced: Unpriced | None = None
    forget_unpriced: bool = False
    unguarded_usd: str | None = None
    forget_unguarded: bool = False
    queue_weight: int | None = None


class SpendingSettingsRules:
    """Reads and changes orgs' settings, and tells the gateways."""

    def __init__(self, database: Database, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    async def get(self, scope: OrgScope) -> SpendingSettings:
        """An org's settings; the platform's own where it never said anything."""
        async with self._database.transaction() as connection:
            return await spending_settings.get_settings(connection, UUID(scope.org_id))

    async def change(self, scope: OrgScope, changed: ChangedSettings) -> SpendingSettings:
        """Change an org's settings. Budgets that were made before keep their time zone.

        Raises:
            InvalidError: there is no such time zone.
            PreconditionFailedError: the change is meant for another version.
        """
        org_id = UUID(scope.org_id)
        values: dict[str, object] = {}
        if changed.time_zone is not None:
            values["time_zone"] = check_time_zone(changed.time_zone)
        if changed.unpriced is not None or changed.forget_unpriced:
            values["unpriced"] = changed.unpriced
        if changed.unguarded_usd is not None:
            values["unguarded_nano_usd"] = parse_amount(changed.unguarded_usd, "/unguarded_usd")
        elif changed.forget_unguarded:
            values["unguarded_nano_usd"] = None
        if changed.queue_weight is not None:
            values["queue_weight"] = changed.queue_weight
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, redis_keys.spending_policy(scope.org_id), org_id)
            before = await spending_settings.get_settings(connection, org_id)
            check_version(before.version)
            if all(getattr(before, name) == value for name, value in values.items()):
                return before
            after = await spending_settings.change_settings(connection, before, values)
            change = Change("spending_settings.update", org_id, org_id, _describe(before), _describe(after))
            await append(connection, "billing", scope.cause, change)
        await self._publishing.publish_policy_or_leave_it(org_id)
        return after


_OF_A_MACHINE = frozenset({"localtime", "Factory"})
"""Names that a machine's own copy of the database may have, and that mean whatever it was told: another one's days differ."""


def check_time_zone(name: str) -> str:
    """The name, when it is one of the IANA time zone database.

    Raises:
        InvalidError: it is none.
    """
    if name in _OF_A_MACHINE or name not in available_timezones():
        problem = FieldError(pointer="/time_zone", detail="It is no name of the IANA time zone database.")
        raise InvalidError("/time_zone is not a time zone such as Europe/Berlin.", errors=[problem])
    return name


def _describe(settings: SpendingSettings) -> dict[str, object]:
    unguarded = settings.unguarded_nano_usd
    return {
        "time_zone": settings.time_zone,
        "unpriced": settings.unpriced,
        "unguarded_usd": None if unguarded is None else format_usd(unguarded),
        "queue_weight": settings.queue_weight,
    }
