"""What the records themselves add up to, for other books to be held against."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.kit.partitions import hour_sql, uuid_floor

_FIGURES = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost_nano_usd")
_RECORDS = text(
    f"""
    SELECT org_id, {hour_sql("id")} AS hour, count(*) AS requests, sum(input_tokens) AS input_tokens,
        sum(cached_input_tokens) AS cached_input_tokens, sum(output_tokens) AS output_tokens, sum(cost_nano_usd) AS cost_nano_usd
    FROM usage_records WHERE id >= :first AND id < :last GROUP BY 1, 2
    """  # noqa: S608  # names of columns
)
_HOURLY = text(
    f"""
    SELECT org_id, hour, {", ".join(f"sum({name}) AS {name}" for name in _FIGURES)}
    FROM usage_hourly WHERE hour >= :start AND hour < :end GROUP BY 1, 2
    """  # noqa: S608  # names of columns
)
_IDS = text(
    "SELECT id FROM usage_records WHERE org_id = :org_id AND id >= :first AND id < :last ORDER BY id LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class HourSum:
    """An org's requests of one hour."""

    org_id: UUID
    hour: datetime
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int


async def sum_records(connection: AsyncConnection, start: datetime, end: datetime) -> list[HourSum]:
    """Every org's hours from `start` on and before `end`, by the records."""
    return await _read(connection, _RECORDS, {"first": uuid_floor(start), "last": uuid_floor(end)})


async def sum_rollups(connection: AsyncConnection, start: datetime, end: datetime) -> list[HourSum]:
    """The same by the hourly sums."""
    return await _read(connection, _HOURLY, {"start": start, "end": end})


async def list_ids(connection: AsyncConnection, org_id: UUID, start: datetime, end: datetime, limit: int) -> list[UUID]:
    """The ids of an org's records, oldest first."""
    told = {"org_id": org_id, "first": uuid_floor(start), "last": uuid_floor(end), "limit": limit}
    return list((await connection.execute(_IDS, told)).scalars())


async def _read(connection: AsyncConnection, query: object, told: dict[str, object]) -> list[HourSum]:
    rows = (await connection.execute(query, told)).mappings()  # type: ignore[call-overload]  # text() clauses are executable
    return [
        HourSum(org_id=row["org_id"], hour=row["hour"], **{name: int(row[name]) for name in _FIGURES}) for row in rows
    ]
