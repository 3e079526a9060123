"""The consumer of usage records."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from prometheus_client import CollectorRegistry, Counter

from ias.billing.core.booking import Booked, Booking
from ias.contracts.events import USAGE_TOPIC
from ias.contracts.usage_messages import UnreadableMessageError, check_message, summarise
from ias.kit import bus
from ias.kit.web import Check

log = structlog.get_logger("ias.billing")

GROUP = "billing"

OpenBooking = Callable[[], AbstractAsyncContextManager[Booking]]


class BookingMetrics:
    """What the consumer counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.entries = Counter(
            "ias_billing_ledger_entries",
            "Usage records booked, by how their cost came about.",
            ("rating",),
            registry=registry,
        )
        self.duplicates = Counter(
            "ias_billing_duplicate_deliveries", "Deliveries of records that were booked before.", registry=registry
        )
        self.refused = Counter(
            "ias_billing_refused_records", "Records that cannot be booked and were set aside.", registry=registry
        )

    def count(self, booked: Booked) -> None:
        """Add a batch."""
        for rating, entries in booked.ratings.items():
            self.entries.labels(rating).inc(entries)
        self.duplicates.inc(booked.known)


class UsageConsumer:
    """Books what arrives on the bus until told to stop. `checks` and `registry` are for the process's health endpoints."""

    def __init__(
        self, bus_url: str, open_booking: OpenBooking, *, checks: dict[str, Check], registry: CollectorRegistry
    ) -> None:
        self._bus_url = bus_url
        self._open_booking = open_booking
        self._metrics = BookingMetrics(registry)
        self.checks = checks
        self.registry = registry

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; a message in hand is finished first."""
        async with self._open_booking() as booking:

            async def handle(body: bytes) -> None:
                await self._book(booking, body)

            await bus.consume(self._bus_url, USAGE_TOPIC, GROUP, handle, stop)

    async def _book(self, booking: Booking, body: bytes) -> None:
        """Book the good records of a message; then set it aside when it holds bad ones. Booking again changes nothing."""
        try:
            batch = check_message(body)
        except UnreadableMessageError as error:
            self._metrics.refused.inc()
            raise bus.PoisonError(str(error)) from error
        booked = await booking.book(batch.records)
        self._metrics.count(booked)
        log.info(
            "booked",
            new=booked.new,
            known=booked.known,
            request_ids=[record.request_id for record in batch.records],
        )
        refusals = batch.refusals + booked.refusals
        if refusals:
            self._metrics.refused.inc(len(refusals))
            raise bus.PoisonError(summarise(refusals, len(batch.records) + len(batch.refusals)))
