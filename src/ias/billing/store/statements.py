"""What was booked, summed for statements."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import LEDGER_ENTRIES
from ias.kit.partitions import uuid_floor


@dataclass(frozen=True, slots=True)
class SummedEntries:
    """The entries of one project, API key and model; money in nano-USD."""

    project_id: UUID | None
    api_key_id: UUID | None
    model: str | None
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    usage_nano_usd: int
    corrections_nano_usd: int
    credits_nano_usd: int


async def sum_entries(connection: AsyncConnection, org_id: UUID, start: datetime, end: datetime) -> list[SummedEntries]:
    """An org's entries by the time in their ids, from `start` on and before `end`."""
    table = LEDGER_ENTRIES
    keys = (table.c.project_id, table.c.api_key_id, table.c.model)
    query = (
        select(
            *keys,
            # What is booked late for a request whose gateway died is a second usage entry of the same request.
            func.count(table.c.request_id.distinct()).filter(table.c.kind == "usage"),
            *(func.sum(table.c[name]) for name in ("input_tokens", "cached_input_tokens", "output_tokens")),
            *(
                func.sum(case((table.c.kind == kind, table.c.cost_nano_usd), else_=0))
                for kind in ("usage", "correction", "credit")
            ),
        )
        .where(table.c.org_id == org_id, table.c.id >= uuid_floor(start), table.c.id < uuid_floor(end))
        .group_by(*keys)
        .order_by(*keys)
    )
    rows = await connection.execute(query)
    return [SummedEntries(*row[:3], *(int(figure) for figure in row[3:])) for row in rows]
