"""The timer that makes monthly partitions ahead of time. Of all replicas, one at a time does it."""

import asyncio
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ias.analytics.store.usage_records import create_partition, find_missing_partitions
from ias.kit.database import Database
from ias.kit.partitions import Month
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.analytics")

_LOCK = 0x1A5_A001
_MONTHS_AHEAD = 3
_INTERVAL_S = 3_600.0


class Partitions:
    """Keeps a partition ready for this month and the next ones."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._failures = Counter(
            "ias_analytics_partition_failures", "Partitions that could not be made.", registry=registry
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Make what is missing, every hour, until `stop` is set."""
        while not stop.is_set():
            try:
                await self.create_missing()
            except Exception as error:  # noqa: BLE001  # whatever is away now may be back at the next turn
                log.warning("partitions not made", error=type(error).__name__, reason=str(error)[:200])
                self._failures.inc()
            await wait_or_stop(stop, _INTERVAL_S)

    async def create_missing(self) -> None:
        """Make the partitions of this month and the next ones, unless another replica is at it."""
        this_month = Month.of(datetime.now(UTC))
        wanted = [this_month.plus(offset) for offset in range(_MONTHS_AHEAD + 1)]
        async with self._database.transaction() as lock:
            if not await lock.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}):
                return
            for month in await find_missing_partitions(lock, wanted):
                await self._create(month)

    async def _create(self, month: Month) -> None:
        try:
            async with self._database.transaction() as connection:
                await create_partition(connection, month)
        except DBAPIError as error:
            # Busy, or the default partition holds rows of that month already: records go there, nothing is lost.
            log.warning("partition not made", month=str(month), error=str(error.orig)[:200])
            self._failures.inc()
