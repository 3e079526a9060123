"""Timers of billing. Of all replicas, one at a time runs a timer's work; the others skip their turn."""

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ias.billing.core.alerts import Alerts
from ias.billing.core.counters import Counters
from ias.billing.core.expired_reservations import ExpiredReservations
from ias.billing.core.publishing import Publishing
from ias.billing.core.readiness import Readiness
from ias.billing.core.reconciliation import CHECKS, Reconciler
from ias.billing.store import budgets, partitions
from ias.kit.database import Database
from ias.kit.partitions import Month
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.billing")

_HEAL_LOCK = 0x1A5_B001
_PARTITIONS_LOCK = 0x1A5_B002
_RECONCILE_LOCK = 0x1A5_B003
_HOURS_RECONCILED = 25
"""A day, and the hour that runs."""

_VERSION_OVERLAP_MS = 60_000
"""Versions are times. A transaction commits later than the version it drew, and clocks differ, by less than this."""
_EVERYTHING_EVERY = 60
_BUDGETS_PER_TURN = 200
_STRAGGLERS_EXPECTED = timedelta(minutes=10)
_STRAGGLERS_AWAITED = timedelta(days=1)
"""How long after a cut late bookings are looked for, in every round and in every long one; reconciliation finds later ones."""
_LONG_ROUND_EVERY = 60
_MONTHS_AHEAD = 3
_PARTITIONS_INTERVAL_S = 3_600.0


class TimerMetrics:
    """What the timers count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.failures = Counter(
            "ias_billing_timer_failures", "Turns of a timer that failed.", ("timer",), registry=registry
        )
        self.rebuilds = Counter(
            "ias_billing_counter_rebuilds", "Times the counters had to be made ready.", registry=registry
        )
        self.stragglers = Counter(
            "ias_billing_counter_corrections",
            "Counters changed by late bookings, corrections and credits.",
            registry=registry,
        )
        self.expired_reservations = Counter(
            "ias_billing_expired_reservations",
            "Reservations booked because their gateway died.",
            registry=registry,
        )
        self.alerts = Counter("ias_billing_alerts", "Thresholds that budgets reached.", registry=registry)
        self.differences = Gauge(
            "ias_billing_reconciliation_differences",
            "Differences that the last reconciliation found, by what was compared with the ledger.",
            ("check",),
            registry=registry,
        )
        self.last_success = Gauge(
            "ias_billing_timer_last_success_timestamp_seconds",
            "When a timer last did its work.",
            ("timer",),
            registry=registry,
        )


class Timers:
    """Runs the timers until told to stop."""

    def __init__(
        self,
        database: Database,
        readiness: Readiness,
        publishing: Publishing,
        counters: Counters,
        expired_reservations: ExpiredReservations,
        *,
        alerts: Alerts,
        reconciler: Reconciler,
        heal_interval_s: float,
        reconcile_interval_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._database = database
        self._readiness = readiness
        self._publishing = publishing
        self._counters = counters
        self._expired_reservations = expired_reservations
        self._alerts = alerts
        self._reconciler = reconciler
        self._heal_interval_s = heal_interval_s
        self._reconcile_interval_s = reconcile_interval_s
        self._metrics = TimerMetrics(registry)
        self._turn = 0
        self._healed_ms = 0
        self._looked_after: UUID | None = None
        self._round = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run all timers until `stop` is set; work in hand is finished first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat("heal", _HEAL_LOCK, self._heal_interval_s, self.heal, stop))
            group.create_task(self._reconcile_now_and_then(stop))
            group.create_task(
                self._repeat("partitions", _PARTITIONS_LOCK, _PARTITIONS_INTERVAL_S, self.create_partitions, stop)
            )

    async def reconcile(self) -> None:
        """Compare all books over the last day."""
        run = await self._reconciler.run(hours=_HOURS_RECONCILED, repair=False)
        found = Counts(difference["check"] for difference in run.differences)
        for check in CHECKS:
            self._metrics.differences.labels(check).set(found[check])

    async def _reconcile_now_and_then(self, stop: asyncio.Event) -> None:
        await wait_or_stop(stop, self._reconcile_interval_s)  # what a start is busy with is not looked at
        interval_s = self._reconcile_interval_s
        await self._repeat("reconcile", _RECONCILE_LOCK, interval_s, self.reconcile, stop)

    async def heal(self) -> None:
        """Make the counters ready, publish what changed, add what was booked late, book what expired, raise alerts."""
        if await self._readiness.ensure():
            self._metrics.rebuilds.inc()
        now_ms = time.time_ns() // 1_000_000
        await self._publishing.publish_changed(above=self._healed_ms - _VERSION_OVERLAP_MS)
        self._healed_ms = now_ms
        if self._turn % _EVERYTHING_EVERY == 0:
            await self._publishing.publish_everything()
        await self._bring_counters_up_to_date()
        self._metrics.expired_reservations.inc(await self._expired_reservations.book_some())
        self._metrics.alerts.inc(await self._alerts.raise_all())
        self._turn += 1

    async def create_partitions(self) -> None:
        """Make the ledger's partitions of this month and the next ones."""
        this_month = Month.of(datetime.now(UTC))
        wanted = [this_month.plus(offset) for offset in range(_MONTHS_AHEAD + 1)]
        async with self._database.transaction() as connection:
            missing = await partitions.find_missing(connection, wanted)
        for month in missing:
            try:
                async with self._database.transaction() as connection:
                    await partitions.create_partition(connection, month)
            except DBAPIError as error:
                # Busy, or the default partition holds rows of that month already: bookings go there, nothing is lost.
                log.warning("partition not made", month=str(month), error=str(error.orig)[:200])
                self._metrics.failures.labels("partitions").inc()

    async def _bring_counters_up_to_date(self) -> None:
        """Look after the next few budgets: a turn's work is bounded, however many there are."""
        async with self._database.transaction() as connection:
            some = await budgets.list_all_budgets(connection, after=self._looked_after, limit=_BUDGETS_PER_TURN)
        self._looked_after = some[-1].id if len(some) == _BUDGETS_PER_TURN else None
        if self._looked_after is None:
            self._round += 1
        awaited = _STRAGGLERS_AWAITED if self._round % _LONG_ROUND_EVERY == 0 else _STRAGGLERS_EXPECTED
        now = datetime.now(UTC)
        changed = await self._counters.add_stragglers(some, now, awaited) + await self._counters.adjust(some, now)
        self._metrics.stragglers.inc(changed)

    async def _repeat(
        self, name: str, lock: int, interval_s: float, work: Callable[[], Awaitable[None]], stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            try:
                await self._run_alone(lock, work)
                self._metrics.last_success.labels(name).set_to_current_time()
            except Exception as error:  # noqa: BLE001  # whatever is away now may be back at the next turn
                log.warning("timer failed", timer=name, error=type(error).__name__, reason=str(error)[:200])
                self._metrics.failures.labels(name).inc()
            await wait_or_stop(stop, interval_s)

    async def _run_alone(self, lock: int, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work unless another replica is at it. The lock lives as long as the transaction that took it."""
        async with self._database.transaction() as connection:
            if await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock}):
                await work()
