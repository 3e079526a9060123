"""Usage summed by hour: added to in the transaction that adds the records, and read for every chart."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, null, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.analytics.store.tables import USAGE_HOURLY

Bucket = Literal["hour", "day"]
Group = Literal["model", "project", "api_key", "user", "none"]

_ADD = text(
    """
    INSERT INTO usage_hourly AS u (
        org_id, hour, project_id, api_key_id, user_id, model, requests, failed, cancelled,
        input_tokens, cached_input_tokens, output_tokens, cost_nano_usd, ttft_histogram, duration_histogram, counted_at
    )
    SELECT
        org_id, hour, project_id, api_key_id, user_id, model, requests, failed, cancelled,
        input_tokens, cached_input_tokens, output_tokens, cost_nano_usd,
        CAST(ttft_histogram AS bigint[]), CAST(duration_histogram AS bigint[]), now()
    FROM unnest(
        CAST(:org_id AS uuid[]), CAST(:hour AS timestamptz[]), CAST(:project_id AS uuid[]), CAST(:api_key_id AS uuid[]),
        CAST(:user_id AS uuid[]), CAST(:model AS text[]), CAST(:requests AS bigint[]), CAST(:failed AS bigint[]),
        CAST(:cancelled AS bigint[]), CAST(:input_tokens AS bigint[]), CAST(:cached_input_tokens AS bigint[]),
        CAST(:output_tokens AS bigint[]), CAST(:cost_nano_usd AS bigint[]), CAST(:ttft_histogram AS text[]),
        CAST(:duration_histogram AS text[])
    ) AS t (
        org_id, hour, project_id, api_key_id, user_id, model, requests, failed, cancelled,
        input_tokens, cached_input_tokens, output_tokens, cost_nano_usd, ttft_histogram, duration_histogram
    )
    ORDER BY org_id, hour, project_id, api_key_id, user_id, model
    ON CONFLICT (org_id, hour, project_id, api_key_id, user_id, model) DO UPDATE SET
        requests = u.requests + excluded.requests,
        failed = u.failed + excluded.failed,
        cancelled = u.cancelled + excluded.cancelled,
        input_tokens = u.input_tokens + excluded.input_tokens,
        cached_input_tokens = u.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        cost_nano_usd = u.cost_nano_usd + excluded.cost_nano_usd,
        ttft_histogram = add_histograms(u.ttft_histogram, excluded.ttft_histogram),
        duration_histogram = add_histograms(u.duration_histogram, excluded.duration_histogram),
        counted_at = excluded.counted_at
    """
)
# Every transaction takes the rows in the same order, so that two that add at once wait for each other and never deadlock.


@dataclass(slots=True)
class HourlySum:
    """What one caller used of one model in one hour."""

    org_id: UUID
    hour: datetime
    project_id: UUID
    api_key_id: UUID
    user_id: UUID | None
    model: str
    ttft_histogram: list[int]
    duration_histogram: list[int]
    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What was used in a bucket of time, by a group."""

    start: datetime
    group: str | None
    requests: int
    failed: int
    cancelled: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    ttft_histogram: list[int]
    duration_histogram: list[int]
    counted_at: datetime
    """When the newest of these requests was counted."""


async def add_sums(connection: AsyncConnection, sums: Sequence[HourlySum]) -> None:
    """Add sums of records that were just added, in the transaction that added them."""
    columns: dict[str, list[Any]] = {
        field.name: [getattr(one, field.name) for one in sums] for field in fields(HourlySum)
    }
    for name in ("ttft_histogram", "duration_histogram"):
        columns[name] = ["{" + ",".join(map(str, histogram)) + "}" for histogram in columns[name]]
    await connection.execute(_ADD, columns)


async def list_sums(
    connection: AsyncConnection, org_id: UUID, *, start: datetime, end: datetime, bucket: Bucket, group: Group
) -> list[UsageSum]:
    """An org's usage from `start` on and before `end`, by bucket and group, oldest first. Empty buckets are left out."""
    table = USAGE_HOURLY
    bucket_start = func.date_trunc(bucket, table.c.hour, "UTC").label("start")
    key = _group_column(group).label("group")
    figures = (
        "requests",
        "failed",
        "cancelled",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "cost_nano_usd",
    )
    query = (
        select(
            bucket_start,
            key,
            *(func.sum(table.c[name]).label(name) for name in figures),
            func.sum_histograms(table.c.ttft_histogram).label("ttft_histogram"),
            func.sum_histograms(table.c.duration_histogram).label("duration_histogram"),
            func.max(table.c.counted_at).label("counted_at"),
        )
        .where(table.c.org_id == org_id, table.c.hour >= start, table.c.hour < end)
        .group_by(text("1"), text("2"))
        .order_by(text("1"), text("2"))
    )
    rows = (await connection.execute(query)).mappings()
    return [
        UsageSum(
            start=row["start"],
            group=str(row["group"]) if row["group"] is not None else None,
            **{name: int(row[name]) for name in figures},
            ttft_histogram=row["ttft_histogram"],
            duration_histogram=row["duration_histogram"],
            counted_at=row["counted_at"],
        )
        for row in rows
    ]


def _group_column(group: Group) -> ColumnElement[Any]:
    match group:
        case "none":
            return cast(null(), Text)
        case "model":
            return USAGE_HOURLY.c.model
        case _:
            return USAGE_HOURLY.c[f"{group}_id"]
