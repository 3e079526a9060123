"""Usage records: one row a request, added once and never changed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.analytics.store.tables import USAGE_RECORDS
from ias.contracts.events import Outcome
from ias.contracts.usage_messages import CheckedRecord
from ias.kit.partitions import Month, create_partition_sql, list_missing_months, uuid_floor

TABLE = "usage_records"


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One request as it is stored."""

    id: UUID
    request_id: str
    occurred_at: datetime
    org_id: UUID
    project_id: UUID
    api_key_id: UUID
    user_id: UUID | None
    service_account_id: UUID | None
    endpoint: str
    model: str
    backend_id: str
    streamed: bool
    status: int
    outcome: Outcome
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    estimated: bool
    price_id: UUID | None
    price_version: int | None
    cost_nano_usd: int
    ttft_ms: float | None
    duration_ms: float


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which of an org's requests are asked for. `start` and `end` bound when they were admitted."""

    org_id: UUID
    project_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: UUID | None = None
    model: str | None = None
    outcome: Outcome | None = None
    start: datetime | None = None
    end: datetime | None = None


_NAMES = tuple(field.name for field in fields(UsageRow))
_DIALECT = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it
_TYPES = {name: USAGE_RECORDS.c[name].type.compile(_DIALECT) for name in _NAMES}
_INSERT = text(
    f"""
    INSERT INTO usage_records ({", ".join(_NAMES)})
    SELECT * FROM unnest({", ".join(f"CAST(:{name} AS {_TYPES[name]}[])" for name in _NAMES)}) AS t ({", ".join(_NAMES)})
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """  # noqa: S608  # every part is the name of a column
)
# In the order of the ids, so that two transactions that add the same records wait for each other and never deadlock.


async def insert_records(connection: AsyncConnection, records: Sequence[CheckedRecord]) -> set[UUID]:
    """Add records from the bus; the ids of those that were not there."""
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in _NAMES}
    return set((await connection.execute(_INSERT, columns)).scalars())


async def list_records(
    connection: AsyncConnection, wanted: RequestFilter, *, before: UUID | None = None, limit: int
) -> list[UsageRow]:
    """Requests, newest first."""
    table = USAGE_RECORDS
    query = select(table)
    for name, value in asdict(wanted).items():
        if value is not None and name not in ("start", "end"):
            query = query.where(table.c[name] == value)
    if wanted.start is not None:
        query = query.where(table.c.id >= uuid_floor(wanted.start))
    if wanted.end is not None:
        query = query.where(table.c.id < uuid_floor(wanted.end))
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [UsageRow(**row) for row in rows.mappings()]


async def find_missing_partitions(connection: AsyncConnection, months: Sequence[Month]) -> list[Month]:
    """Those of the months that have no partition yet."""
    return await list_missing_months(connection, TABLE, months)


async def create_partition(connection: AsyncConnection, month: Month) -> None:
    """Make a month's partition. Gives up rather than hold up the consumer for long."""
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    await connection.execute(text(create_partition_sql(TABLE, month)))
