"""`/analytics/v1/requests`: recent requests, one by one."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from ias.analytics.api.parts import CursorsPart, UsagePart
from ias.analytics.store.usage_records import RequestFilter, UsageRow
from ias.contracts.events import Outcome
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/analytics/v1/requests", tags=["requests"])


class RequestAnswer(Answer):
    """One served request. No part of the conversation is kept."""

    id: UUID
    request_id: str
    occurred_at: datetime
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
    cost_usd: str = Field(description="As the gateway counted it; billing's ledger has the last word.")
    ttft_ms: float | None
    duration_ms: float


class RequestQuery(Answer):
    """Filters of the list. `start` and `end` bound when requests were admitted."""

    project_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: UUID | None = None
    model: Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00]*$")] = None
    outcome: Outcome | None = None
    start: Moment | None = None
    end: Moment | None = None


@router.get("")
async def list_requests(
    *,
    access: Annotated[Access, requires(Permission.USAGE_READ)],
    usage: UsagePart,
    cursors: CursorsPart,
    org_id: Annotated[UUID, Query()],
    wanted: Annotated[RequestQuery, Depends()],
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[RequestAnswer]:
    """An org's requests, newest first. A request appears within seconds of its end."""
    access.in_org(str(org_id))
    filters = f"requests\0{org_id}\0{wanted.model_dump_json()}"
    rows = await usage.list_requests(
        RequestFilter(org_id=org_id, **wanted.model_dump()), before=cursors.decode(cursor, filters), limit=limit + 1
    )
    return cursors.page([_render(row) for row in rows], limit, filters)


def _render(row: UsageRow) -> RequestAnswer:
    return RequestAnswer.model_validate(asdict(row) | {"cost_usd": format_usd(row.cost_nano_usd)})
