"""What engines counted, in PostgreSQL: readings of their counters, and what these say of a time between."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.registry.store.tables import ADAPTERS, BACKENDS, ENGINE_TOKEN_READINGS

KEPT = timedelta(days=63)
"""As far back as reconciliation may ask, and a day."""

_SUMS = text(
    """
    WITH readings AS (
        SELECT backend_id, at, prompt_tokens, generation_tokens,
            lag(prompt_tokens) OVER backend AS prompt_before, lag(generation_tokens) OVER backend AS generation_before
        FROM engine_token_readings WHERE at >= :start AND at <= :end
        WINDOW backend AS (PARTITION BY backend_id ORDER BY at)
    ), steps AS (
        SELECT *, prompt_tokens < prompt_before OR generation_tokens < generation_before AS is_restart FROM readings
    )
    SELECT backend_id, min(at) AS first_at, max(at) AS last_at,
        coalesce(sum(CASE WHEN is_restart THEN prompt_tokens ELSE prompt_tokens - prompt_before END), 0) AS prompt_tokens,
        coalesce(sum(CASE WHEN is_restart THEN generation_tokens ELSE generation_tokens - generation_before END), 0)
            AS generation_tokens,
        count(*) FILTER (WHERE is_restart) AS restarts
    FROM steps GROUP BY backend_id HAVING count(*) > 1 ORDER BY backend_id
    """
)


@dataclass(frozen=True, slots=True)
class TokenReading:
    """The counters of one backend's engine at a moment."""

    backend_id: UUID
    at: datetime
    prompt_tokens: int
    generation_tokens: int


@dataclass(frozen=True, slots=True)
class TokenSum:
    """What a backend's engine counted between two readings. What a restart took with it is not in it."""

    backend_id: UUID
    first_at: datetime
    last_at: datetime
    prompt_tokens: int
    generation_tokens: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Served:
    """Who is served by the server at a URL: a backend, or an adapter of one."""

    id: UUID
    backend_id: UUID
    url: str


async def insert_readings(connection: AsyncConnection, readings: Sequence[TokenReading]) -> None:
    """Add readings of backends that there are, and forget theirs from longer ago than `KEPT`."""
    touched = {reading.backend_id for reading in readings}
    known = set((await connection.execute(select(BACKENDS.c.id).where(BACKENDS.c.id.in_(touched)))).scalars())
    rows = [
        {name: getattr(reading, name) for name in TokenReading.__slots__}
        for reading in readings
        if reading.backend_id in known
    ]
    if not rows:
        return
    table = ENGINE_TOKEN_READINGS
    await connection.execute(insert(table).on_conflict_do_nothing(), rows)
    oldest = max(reading.at for reading in readings) - KEPT
    await connection.execute(delete(table).where(table.c.backend_id.in_(known), table.c.at < oldest))


async def sum_tokens(connection: AsyncConnection, start: datetime, end: datetime) -> list[TokenSum]:
    """What each backend's engine counted between its first and its last reading in a period."""
    rows = (await connection.execute(_SUMS, {"start": start, "end": end})).mappings()
    return [TokenSum(**{name: row[name] for name in TokenSum.__slots__}) for row in rows]


async def list_served(connection: AsyncConnection) -> list[Served]:
    """Every backend and adapter that there ever was, with its server."""
    backends = select(BACKENDS.c.id, BACKENDS.c.id.label("backend_id"), BACKENDS.c.url)
    adapters = select(ADAPTERS.c.id, ADAPTERS.c.backend_id, BACKENDS.c.url).join(
        BACKENDS, BACKENDS.c.id == ADAPTERS.c.backend_id
    )
    return [Served(row.id, row.backend_id, row.url) for row in await connection.execute(backends.union_all(adapters))]
