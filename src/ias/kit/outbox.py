"""The outbox: what a service tells the others, written in the transaction of what it tells, and published afterwards.

A relay takes the oldest messages, publishes them, and removes them when the bus has confirmed. One relay at a time works on a
database (an advisory lock), so messages leave in the order in which they were written. A relay that is killed between the
confirm and the removal publishes again; consumers know a message by its id. The table has no bound of its own: while the bus
is away it grows with what is changed, and refusing changes would be worse than that. The metrics say how much waits.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.events import AUDIT_RECORDED, AUDIT_TOPIC, AuditBatch, AuditRecord
from ias.kit.audit import Cause, Change, make_records
from ias.kit.bus import Publisher
from ias.kit.database import Database
from ias.kit.pauses import wait_or_stop
from ias.kit.writes import note_records

log = structlog.get_logger("ias.outbox")

BATCH_MAX = 100
_INTERVAL_S = 0.25
_BACKOFF_S = 2.0
_PUBLISH_TIMEOUT_S = 10.0
_COUNTED_MAX = 10_000
_LOCK_ID = 0x1A5_0002


def outbox_table(metadata: MetaData) -> Table:
    """The table, for a service's own tables; `create_outbox_sql` makes it."""
    return Table(
        "outbox",
        metadata,
        Column("sequence", BigInteger, Identity(always=True), primary_key=True),
        Column("id", Uuid, nullable=False),
        Column("topic", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
    )


CREATE_OUTBOX_SQL = """
CREATE TABLE outbox (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    topic text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL
)
"""

_OUTBOX = outbox_table(MetaData())


@dataclass(frozen=True, slots=True)
class _Message:
    sequence: int
    id: UUID
    topic: str
    body: bytes


async def append(connection: AsyncConnection, service: str, cause: Cause, *changes: Change) -> None:
    """Write changes down for the audit log, in the transaction of the changes."""
    records = make_records(service, cause, changes)
    note_records(records)
    await put_records(connection, records)


async def put_records(connection: AsyncConnection, records: Sequence[AuditRecord]) -> None:
    """Write audit records down, to be published once the transaction is committed."""
    if not records:
        return
    now = datetime.now(UTC)
    rows = [
        {
            "id": UUID(record.id),
            "topic": AUDIT_TOPIC,
            "body": msgspec.json.encode(AuditBatch(schema=AUDIT_RECORDED, records=[record])),
            "created_at": now,
        }
        for record in records
    ]
    await connection.execute(insert(_OUTBOX), rows)


class Relay:
    """Publishes a service's outbox."""

    def __init__(self, service: str, database: Database, publisher: Publisher, registry: CollectorRegistry) -> None:
        self._database = database
        self._publisher = publisher
        self._published = Counter(f"ias_{service}_outbox_published", "Messages published.", registry=registry)
        self._waiting = Gauge(
            f"ias_{service}_outbox_waiting",
            f"Messages not published yet, counted up to {_COUNTED_MAX}.",
            registry=registry,
        )
        self._lag_s = Gauge(
            f"ias_{service}_outbox_lag_seconds", "Age of the oldest message not published yet.", registry=registry
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Publish what there is, again and again, until told to stop."""
        was_away = False
        try:
            while not stop.is_set():
                try:
                    full = await self.relay_once() == BATCH_MAX
                    was_away = False
                except Exception as error:  # noqa: BLE001  # bus or database away, whatever the driver calls it: they wait
                    if not was_away:
                        log.warning("the outbox waits to be published", error=type(error).__name__)
                    full, was_away = False, True
                if not full:
                    await wait_or_stop(stop, _BACKOFF_S if was_away else _INTERVAL_S)
                if stop.is_set():
                    return
        finally:
            await self._publisher.close()

    async def relay_once(self) -> int:
        """Publish one batch of the oldest messages and remove them; how many there were. Raises what bus and database do."""
        async with self._database.transaction() as connection:
            await self._measure(connection)
            if not (await connection.execute(text(f"SELECT pg_try_advisory_xact_lock({_LOCK_ID})"))).scalar_one():
                return 0  # another process of this service is at it
            messages = await self._take(connection)
            sent = await self._publish(messages)
            if sent:
                await connection.execute(delete(_OUTBOX).where(_OUTBOX.c.sequence.in_([one.sequence for one in sent])))
        self._published.inc(len(sent))
        return len(sent)

    async def _take(self, connection: AsyncConnection) -> list[_Message]:
        columns = (_OUTBOX.c.sequence, _OUTBOX.c.id, _OUTBOX.c.topic, _OUTBOX.c.body)
        rows = await connection.execute(select(*columns).order_by(_OUTBOX.c.sequence).limit(BATCH_MAX))
        return [_Message(*row) for row in rows]

    async def _publish(self, messages: Sequence[_Message]) -> list[_Message]:
        """Those that the bus has confirmed: all, or the first ones when a failure or the deadline comes between."""
        sent: list[_Message] = []
        give_up_at = time.monotonic() + _PUBLISH_TIMEOUT_S
        for one in messages:
            try:
                await self._publisher.publish(one.topic, one.body, message_id=str(one.id))
            except Exception:  # whatever it was, what was confirmed before it is removed
                if not sent:
                    raise
                break
            sent.append(one)
            if time.monotonic() > give_up_at:
                break
        return sent

    async def _measure(self, connection: AsyncConnection) -> None:
        first = select(_OUTBOX.c.created_at).order_by(_OUTBOX.c.sequence).limit(_COUNTED_MAX).subquery()
        query = select(func.count(), func.min(first.c.created_at)).select_from(first)
        waiting, oldest = (await connection.execute(query)).one()
        self._waiting.set(waiting)
        self._lag_s.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0)
