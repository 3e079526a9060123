"""The consumer of usage records."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from prometheus_client import CollectorRegistry, Counter

from ias.analytics.core.counting import Counting
from ias.contracts.events import USAGE_TOPIC
from ias.contracts.usage_messages import UnreadableMessageError, check_message, summarise
from ias.kit import bus
from ias.kit.web import Check

log = structlog.get_logger("ias.analytics")

GROUP = "analytics"

OpenCounting = Callable[[], AbstractAsyncContextManager[Counting]]


class UsageConsumer:
    """Counts what arrives on the bus until told to stop. `checks` and `registry` are for the process's health endpoints."""

    def __init__(
        self, bus_url: str, open_counting: OpenCounting, *, checks: dict[str, Check], registry: CollectorRegistry
    ) -> None:
        self._bus_url = bus_url
        self._open_counting = open_counting
        self.checks = checks
        self.registry = registry
        self._counted = Counter("ias_analytics_usage_records", "Usage records counted.", registry=registry)
        self._duplicates = Counter(
            "ias_analytics_duplicate_deliveries", "Deliveries of records that were counted before.", registry=registry
        )
        self._refused = Counter(
            "ias_analytics_refused_records", "Records that cannot be counted and were set aside.", registry=registry
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; a message in hand is finished first."""
        async with self._open_counting() as counting:

            async def handle(body: bytes) -> None:
                await self._count(counting, body)

            await bus.consume(self._bus_url, USAGE_TOPIC, GROUP, handle, stop)

    async def _count(self, counting: Counting, body: bytes) -> None:
        """Count the good records of a message; then set it aside when it holds bad ones. Counting again changes nothing."""
        try:
            batch = check_message(body)
        except UnreadableMessageError as error:
            self._refused.inc()
            raise bus.PoisonError(str(error)) from error
        counted = await counting.count(batch.records)
        self._counted.inc(counted.new)
        self._duplicates.inc(counted.known)
        log.info(
            "counted",
            new=counted.new,
            known=counted.known,
            request_ids=[record.request_id for record in batch.records],
        )
        refusals = batch.refusals + counted.refusals
        if refusals:
            self._refused.inc(len(refusals))
            raise bus.PoisonError(summarise(refusals, len(batch.records) + len(batch.refusals)))
