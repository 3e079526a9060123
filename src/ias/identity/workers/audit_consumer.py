"""The consumer of other services' audit records."""

import asyncio

import structlog
from prometheus_client import CollectorRegistry, Counter

from ias.contracts.events import AUDIT_TOPIC
from ias.identity.core.audit_log import AuditLog
from ias.identity.core.audit_messages import UnreadableRecordError, read_records
from ias.kit import bus

log = structlog.get_logger("ias.identity.audit")

GROUP = "identity"


class AuditConsumer:
    """Puts what arrives on the bus into the chains until told to stop."""

    def __init__(self, bus_url: str, audit_log: AuditLog, registry: CollectorRegistry) -> None:
        self._bus_url = bus_url
        self._audit_log = audit_log
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
        await bus.consume(self._bus_url, AUDIT_TOPIC, GROUP, self._chain, stop)

    async def _chain(self, body: bytes) -> None:
        try:
            records = read_records(body)
        except UnreadableRecordError as error:
            self._refused.inc()
            raise bus.PoisonError(str(error)) from error
        new = await self._audit_log.write(records)
        self._chained.inc(new)
        self._known.inc(len(records) - new)
        log.info("chained", new=new, known=len(records) - new, request_ids=[record.request_id for record in records])
