"""What the ledger says engines must have counted between two moments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.kit.partitions import uuid_floor

_LONGEST = timedelta(days=1)
"""No request takes longer."""

_BOUNDS = text(
    """
    SELECT s.number, sum(input_tokens) AS input_most, sum(output_tokens) AS output_most,
        coalesce(sum(input_tokens) FILTER (WHERE id >= s.first AND occurred_at <= s.until AND NOT estimated), 0) AS input_least,
        coalesce(sum(output_tokens) FILTER (WHERE id >= s.first AND occurred_at <= s.until AND NOT estimated), 0) AS output_least
    FROM unnest(
        CAST(:number AS integer[]), CAST(:backend_id AS text[]), CAST(:since AS timestamptz[]),
        CAST(:until AS timestamptz[]), CAST(:first AS uuid[]), CAST(:last AS uuid[])
    ) AS s (number, served_id, since, until, first, last)
    JOIN ledger_entries ON backend_id = s.served_id AND id < s.last AND occurred_at >= s.since
    WHERE id >= :earliest AND id < :latest AND kind = 'usage' AND rating <> 'reserved'
    GROUP BY s.number
    """
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may have been counted: no less, no more."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class ServedTokens:
    """By the ledger, of one engine: what was begun and ended within a time for certain, and what may have touched it."""

    input: Bounds
    output: Bounds


@dataclass(frozen=True, slots=True)
class Span:
    """An engine, and between which moments it is looked at."""

    served_ids: tuple[str, ...]
    since: datetime
    until: datetime


async def bound_served(
    connection: AsyncConnection, spans: Sequence[Span], *, uncertainty: timedelta
) -> list[ServedTokens]:
    """What each span's engine served in it. `uncertainty`: between gateways' clocks and that of who read the moments."""
    pairs = [(number, span, served) for number, span in enumerate(spans) for served in span.served_ids]
    told = {
        "number": [number for number, _, _ in pairs],
        "backend_id": [served for _, _, served in pairs],
        "since": [span.since - uncertainty for _, span, _ in pairs],
        "until": [span.until - uncertainty for _, span, _ in pairs],
        "first": [uuid_floor(span.since + uncertainty) for _, span, _ in pairs],
        "last": [uuid_floor(span.until + uncertainty) for _, span, _ in pairs],
        "earliest": uuid_floor(min(span.since for span in spans) - _LONGEST),
        "latest": uuid_floor(max(span.until for span in spans) + uncertainty),
    }
    served = [ServedTokens(Bounds(0, 0), Bounds(0, 0))] * len(spans)
    for row in await connection.execute(_BOUNDS, told):
        served[row.number] = ServedTokens(
            Bounds(int(row.input_least), int(row.input_most)), Bounds(int(row.output_least), int(row.output_most))
        )
    return served
