"""The consumer of other services' audit records."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from prometheus_client import CollectorRegistry, Counter

from ias.contracts.events import AUDIT_TOPIC
from ias.identity.core.audit_log import AuditLog
from ias.identity.core.audit_messages import UnreadableRecordError, read_records
from ias.kit import bus
from ias.kit.web import Check

log = structlog.get_logger("ias.identity.audit")

GROUP = "identity"

OpenLog = Callable[[], AbstractAsyncContextManager[AuditLog]]


class AuditConsumer:
    """Puts what arrives on the bus into the chains until told to stop. `checks` and `registry` are for the health endpoints."""

    def __init__(
        self, bus_url: str, open_log: OpenLog, *, checks: dict[str, Check], registry: CollectorRegistry
    ) -> None:
        self._bus_url = bus_url
        self._open_log = open_log
        self.checks = checks
        self.registry = registry
        self._chained = Counter("ias_identity_audit_records", "Records of other services chained.", registry=registry)
        self._known = Counter(
            "ias_identity_audit_duplicate_deliveries",
            "Deliveries of records that were chained before.",
            registry=registry,
        )
        self._refused = Counter(
            "ias_identity_audit_refused_messages", "Messages that cannot be read and were set aside.", registry=registry
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; a message in hand is finished first."""
        async with self._open_log() as audit_log:

            async def handle(body: bytes) -> None:
                await self._chain(audit_log, body)

            await bus.consume(self._bus_url, AUDIT_TOPIC, GROUP, handle, stop)

    async def _chain(self, audit_log: AuditLog, body: bytes) -> None:
        try:
            records = read_records(body)
        except UnreadableRecordError as error:
            self._refused.inc()
            raise bus.PoisonError(str(error)) from error
        new = await audit_log.write(records)
        self._chained.inc(new)
        self._known.inc(len(records) - new)
        log.info("chained", new=new, known=len(records) - new, request_ids=[record.request_id for record in records])
