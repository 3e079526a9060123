"""What runs beside a service's requests so that the audit log learns of them: its denials, and the relay of its outbox."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ias.contracts.events import AuditRecord
from ias.kit.bus import open_publisher
from ias.kit.database import Database
from ias.kit.denials import Denials
from ias.kit.outbox import Relay, put_records
from ias.kit.settings import ServiceSettings

_STOP_TIMEOUT_S = 15.0
"""Longer than one operation on PostgreSQL or the bus may take."""


@asynccontextmanager
async def audit_trail(
    app: FastAPI, service: str, database: Database, settings: ServiceSettings, bus_url: str
) -> AsyncIterator[None]:
    """For a block, write the denials of the app's routes down and publish the outbox."""

    async def write(records: Sequence[AuditRecord]) -> None:
        async with database.transaction() as connection:
            await put_records(connection, records)

    denials = Denials(service, write, app.state.registry, per_caller_max=settings.audit_denials_per_caller_max)
    relay = Relay(service, database, open_publisher(bus_url), app.state.registry)
    app.state.denials = denials
    stop = asyncio.Event()
    running = [
        asyncio.create_task(denials.run(stop), name=f"{service} denials"),
        asyncio.create_task(relay.run(stop), name=f"{service} outbox"),
    ]
    try:
        yield
    finally:
        stop.set()
        _, late = await asyncio.wait(running, timeout=_STOP_TIMEOUT_S)
        for task in late:
            task.cancel()
