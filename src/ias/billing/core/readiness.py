"""Readiness: gateways admit only while the marker says that the counters are complete, and billing makes that true.

On an intact Redis nothing is touched. On one that lost its data (or is new) every budget's counter is set up from the ledger,
prices and policies are written, and only then the marker is.
"""

import secrets
import time

import structlog

from ias.billing.core.counters import cut_now
from ias.billing.core.publishing import Publishing
from ias.billing.store import budgets
from ias.billing.store.counters import CounterStore
from ias.kit.database import Database

log = structlog.get_logger("ias.billing")


class Readiness:
    """Keeps the marker. `redis.RedisError` is the caller's to handle; the next call begins anew."""

    def __init__(self, database: Database, store: CounterStore, publishing: Publishing) -> None:
        self._database = database
        self._store = store
        self._publishing = publishing

    async def ensure(self) -> bool:
        """Set the marker when it is absent, after making true what it says; whether that was needed."""
        if await self._store.are_ready():
            return False
        token = secrets.token_hex(16)
        await self._store.begin_rebuild(token)
        # Nothing is admitted without the marker: whatever has an id from before now was admitted before Redis lost its data.
        cut = cut_now("data_lost")
        lost = not await self._store.were_ever_ready()
        if lost:
            async with self._database.transaction() as connection:
                every = await budgets.list_all_budgets(connection)
            await self._publishing.set_up_counters(every, cut)
        await self._publishing.publish_everything()
        ready = await self._store.finish_rebuild(token, time.time_ns() // 1_000_000)
        log.warning("spending counters are ready" if ready else "Redis lost its data again", rebuilt=lost)
        return True
