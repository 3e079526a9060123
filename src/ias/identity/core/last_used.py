"""When API keys were last used, from the usage records that gateways publish anyway."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ias.contracts.usage_messages import CheckedRecord
from ias.identity.store import api_keys as store
from ias.kit.database import Database

RESOLUTION = timedelta(minutes=1)
"""A key's moment is written when it is this much later than the one that stands there: a busy key costs one write a minute."""


class LastUsed:
    """Writes down when keys were used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, records: Iterable[CheckedRecord]) -> int:
        """Note the latest use of each key; how many keys that changed.

        Records may come twice, late and in any order: no key's moment goes back. Keys that are not there, or not in the record's
        org, are passed over. A moment in the future, from a clock that is ahead, counts as now.
        """
        now = datetime.now(UTC)
        latest: dict[tuple[UUID, UUID], datetime] = {}
        for checked in records:
            key = (checked.org_id, checked.api_key_id)
            used_at = min(checked.occurred_at, now)
            latest[key] = max(used_at, latest.get(key, used_at))
        if not latest:
            return 0
        async with self._database.transaction() as connection:
            return await store.mark_used(connection, latest, resolution=RESOLUTION)
