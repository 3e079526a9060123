"""Readiness: gateways admit only while the marker says that the counters are complete, and billing makes that true.

On an intact Redis nothing is touched. On one that lost its data (or is new) every budget's counter is set up from the ledger,
prices and policies are written, and only then the marker is. Before that the ledger has to know what was served: gateways get the
time to come back and hold again what requests under way had reserved, and usage that waits in spools or on the bus is booked first.
"""

import secrets
import time
from collections.abc import Awaitable, Callable

import structlog

from ias.billing.core.counters import cut_now
from ias.billing.core.publishing import Publishing
from ias.billing.store import budgets
from ias.billing.store.counters import CounterStore
from ias.kit.database import Database

log = structlog.get_logger("ias.billing")


_TOLD_WITHIN_MS = 5_000
"""Gateways tell each second whether usage waits in their spools; who has not for so long has none, or is gone."""
_IN_HAND_S = 1.0
"""What a consumer has taken from the bus is booked within this, as a rule."""
_PATIENCE_S = 60.0
"""After so long the counters are set up from what the ledger knows by then: an outage of the bus must not become everybody's."""

CountWaiting = Callable[[], Awaitable[int]]


class Readiness:
    """Keeps the marker. `redis.RedisError` is the caller's to handle; the next call begins anew.

    `count_waiting` asks the bus how many messages billing has not booked yet. Gateways are given `gateways_return_s` to come back.
    """

    def __init__(
        self,
        database: Database,
        store: CounterStore,
        publishing: Publishing,
        *,
        count_waiting: CountWaiting,
        gateways_return_s: float,
    ) -> None:
        self._database = database
        self._store = store
        self._publishing = publishing
        self._count_waiting = count_waiting
        self._gateways_return_s = gateways_return_s
        self._lost_at: float | None = None
        self._drained_at: float | None = None

    async def ensure(self) -> bool:
        """Set the marker when it is absent, after making true what it says; whether that was needed."""
        if await self._store.are_ready():
            self._lost_at = self._drained_at = None
            return False
        lost = not await self._store.were_ever_ready()
        if lost:
            async with self._database.transaction() as connection:
                every = await budgets.list_all_budgets(connection)
            if every and not await self._knows_what_was_served():
                return False
        token = secrets.token_hex(16)
        await self._store.begin_rebuild(token)
        # Nothing is admitted without the marker: whatever has an id from before now was admitted before Redis lost its data.
        cut = cut_now("data_lost")
        if lost:
            await self._publishing.set_up_counters(every, cut)
        await self._publishing.publish_everything()
        ready = await self._store.finish_rebuild(token, time.time_ns() // 1_000_000)
        log.warning("spending counters are ready" if ready else "Redis lost its data again", rebuilt=lost)
        return True

    async def _knows_what_was_served(self) -> bool:
        """Whether gateways have had their time, and nothing that was served before the loss waits to be booked."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            log.warning("Redis has lost its data; waiting for gateways and for usage that is on its way")
        if now - self._lost_at > _PATIENCE_S:
            log.error("usage still waits to be booked; the counters are set up without it")
            return True
        since_ms = time.time_ns() // 1_000_000 - _TOLD_WITHIN_MS
        if now - self._lost_at < self._gateways_return_s or await self._store.count_unpublished(since_ms):
            return False
        try:
            waiting = await self._count_waiting()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the bus, it is asked again
            log.warning("the bus cannot be asked what waits", error=type(error).__name__)
            waiting = 1
        if waiting:
            self._drained_at = None
            return False
        self._drained_at = self._drained_at or now
        return now - self._drained_at >= min(_IN_HAND_S, self._gateways_return_s)
