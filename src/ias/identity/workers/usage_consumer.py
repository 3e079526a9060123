"""The consumer of usage records, for when keys were last used."""

import asyncio

import structlog
from prometheus_client import CollectorRegistry, Counter

from ias.contracts.events import USAGE_TOPIC
from ias.contracts.usage_messages import UnreadableMessageError, check_message, summarise
from ias.identity.core.last_used import LastUsed
from ias.kit import bus

log = structlog.get_logger("ias.identity.usage")

GROUP = "identity"


class UsageConsumer:
    """Notes what arrives on the bus until told to stop."""

    def __init__(self, bus_url: str, last_used: LastUsed, registry: CollectorRegistry) -> None:
        self._bus_url = bus_url
        self._last_used = last_used
        self._records = Counter(
            "ias_identity_usage_records", "Usage records read for when keys were last used.", registry=registry
        )
        self._noted = Counter(
            "ias_identity_key_uses_noted", "Times that a key's last use was written down.", registry=registry
        )
        self._refused = Counter(
            "ias_identity_refused_usage_records",
            "Usage records that cannot be read and were set aside.",
            registry=registry,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; a message in hand is finished first."""
        await bus.consume(self._bus_url, USAGE_TOPIC, GROUP, self._note, stop)

    async def _note(self, body: bytes) -> None:
        """Note the good records of a message; then set it aside when it holds bad ones. Noting again changes nothing."""
        try:
            batch = check_message(body)
        except UnreadableMessageError as error:
            self._refused.inc()
            raise bus.PoisonError(str(error)) from error
        noted = await self._last_used.note(batch.records)
        self._records.inc(len(batch.records))
        self._noted.inc(noted)
        log.debug("noted", records=len(batch.records), keys=noted)
        if batch.refusals:
            self._refused.inc(len(batch.refusals))
            raise bus.PoisonError(summarise(batch.refusals, len(batch.records) + len(batch.refusals)))
