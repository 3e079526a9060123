"""Everything that identity takes from the bus, in one process: other services' audit records, and gateways' usage records."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry

from ias.kit.database import Database
from ias.kit.web import Check


class TopicConsumer(Protocol):
    """The consumer of one topic."""

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; a message in hand is finished first."""


class IdentityConsumer:
    """Runs the consumers side by side over one database. `checks` and `registry` are for the process's health endpoints."""

    def __init__(self, topics: Sequence[TopicConsumer], database: Database, registry: CollectorRegistry) -> None:
        self._topics = topics
        self._database = database
        self.checks: dict[str, Check] = {"postgres": database.ping}
        self.registry = registry

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set. Should one consumer fail, the others end too, and its failure is raised."""
        try:
            async with asyncio.TaskGroup() as group:
                for topic in self._topics:
                    group.create_task(topic.run(stop))
        finally:
            await self._database.close()
