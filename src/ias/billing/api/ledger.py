"""`/billing/v1/ledger`: what was booked; `/billing/v1/requests/{request_id}`: why."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import Depends, Path, Query
from pydantic import Field

from ias.billing.api.parts import CursorsPart, LedgerPart
from ias.billing.api.prices import PriceAnswer, render_price
from ias.billing.api.schemas import ModelName
from ias.billing.store.ledger import Kind, LedgerEntry, LedgerFilter, Rating
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.contracts.unserved import REMEMBERED_MAX, UnservedRequest
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/billing/v1", tags=["ledger"])

RequestId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]


class EntryAnswer(Answer):
    """One booking. Entries are never changed or removed; a correction is another entry."""

    id: UUID
    kind: Kind
    org_id: UUID
    project_id: UUID | None
    api_key_id: UUID | None
    user_id: UUID | None
    service_account_id: UUID | None
    request_id: str | None
    endpoint: str | None
    model: str | None
    backend_id: str | None
    streamed: bool | None
    status: int | None
    outcome: str | None
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd: str
    settled_usd: str = Field(description="What the gateway had counted in the budgets when the request ended.")
    price_id: UUID | None
    price_version: int | None
    rating: Rating = Field(
        description="`rated`: the price agrees with the gateway; `repriced`: the price's own result was booked instead;"
        " `unpriced`: there was no price; `price_unknown`: the price named is not known here; `adjusted`: a person decided;"
        " `reserved`: the gateway died, and all that it had reserved was booked; `rerated`: the price was set or changed"
        " afterwards, and this is the difference."
    )
    estimated: bool
    occurred_at: datetime
    reason: str | None = Field(description="Why a correction or a credit was booked.")


class UnservedAnswer(Answer):
    """How a request ended that no backend served. It cost nothing and has no entries."""

    ended_at: datetime
    project_id: str
    api_key_id: str
    user_id: str | None
    service_account_id: str | None
    endpoint: str
    model: str = Field(description="As the client named it.")
    status: int = Field(description="What it was answered; 499: the client did not wait.")
    outcome: str
    code: str | None = Field(description="The error's.")
    denied_by: str | None = Field(description="The budget or rate limit that had no room, as `x-ias-denied-by` has it.")
    reserved_usd: str = Field(description="What it asked budgets for: the most that it could have cost.")
    remaining_usd: str | None = Field(description="What the budget that refused had left; never below zero.")
    budgets: list[str] = Field(description="The ids of those that it asked.")
    rate_limits: list[str]
    attempts: list[str] = Field(description="Backends that were tried, with what came of it.")


class ExplanationAnswer(Answer):
    """What a request cost and why: its entries, the prices, and the decisions taken on its way. Or why it was not served."""

    request_id: str
    entries: list[EntryAnswer]
    prices: list[PriceAnswer]
    decisions: list[dict[str, Any]] = Field(description="One for each entry, in the same order.")
    unserved: UnservedAnswer | None = Field(
        description="In place of entries, when the request was refused or failed. Remembered for a day, of each org's the newest"
        f" {REMEMBERED_MAX:,}."
    )


class LedgerQuery(Answer):
    """Filters of the ledger. `start` and `end` bound when requests were admitted, which decides their budget window."""

    request_id: RequestId | None = None
    project_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: UUID | None = None
    model: ModelName | None = None
    kind: Kind | None = None
    start: Moment | None = None
    end: Moment | None = None


@router.get("/ledger")
async def list_ledger(
    *,
    access: Annotated[Access, requires(Permission.LEDGER_READ)],
    ledger: LedgerPart,
    cursors: CursorsPart,
    org_id: Annotated[UUID, Query()],
    wanted: Annotated[LedgerQuery, Depends()],
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[EntryAnswer]:
    """An org's ledger, newest first. A request's entry appears within seconds of its end."""
    access.in_org(str(org_id))
    filters = f"ledger\0{org_id}\0{wanted.model_dump_json()}"
    rows = await ledger.list(
        LedgerFilter(org_id=org_id, **wanted.model_dump()), before=cursors.decode(cursor, filters), limit=limit + 1
    )
    return cursors.page([render_entry(row) for row in rows], limit, filters)


@router.get("/requests/{request_id}")
async def explain_request(
    request_id: Annotated[RequestId, Path()],
    access: Annotated[Access, requires(Permission.LEDGER_READ)],
    ledger: LedgerPart,
    org_id: Annotated[UUID, Query()],
) -> ExplanationAnswer:
    """Why a request was admitted, routed and priced as it was, or refused."""
    explanation = await ledger.explain(access.in_org(str(org_id)), request_id)
    return ExplanationAnswer(
        request_id=request_id,
        entries=[render_entry(entry) for entry in explanation.entries],
        prices=[render_price(price) for price in explanation.prices],
        decisions=[entry.told for entry in explanation.entries],
        unserved=_render_unserved(explanation.unserved) if explanation.unserved else None,
    )


def _render_unserved(one: UnservedRequest) -> UnservedAnswer:
    told = msgspec.structs.asdict(one)
    del told["request_id"]
    reserved, remaining = told.pop("reserved_nano_usd"), told.pop("remaining_nano_usd")
    remaining_usd = None if remaining is None else format_usd(max(0, remaining))
    return UnservedAnswer(**told, reserved_usd=format_usd(reserved), remaining_usd=remaining_usd)


def render_entry(entry: LedgerEntry) -> EntryAnswer:
    """The entry on the wire."""
    return EntryAnswer(
        id=entry.id,
        kind=entry.kind,
        org_id=entry.org_id,
        project_id=entry.project_id,
        api_key_id=entry.api_key_id,
        user_id=entry.user_id,
        service_account_id=entry.service_account_id,
        request_id=entry.request_id,
        endpoint=entry.endpoint,
        model=entry.model,
        backend_id=entry.backend_id,
        streamed=entry.streamed,
        status=entry.status,
        outcome=entry.outcome,
        input_tokens=entry.input_tokens,
        cached_input_tokens=entry.cached_input_tokens,
        output_tokens=entry.output_tokens,
        cost_usd=format_usd(entry.cost_nano_usd),
        settled_usd=format_usd(entry.settled_nano_usd),
        price_id=entry.price_id,
        price_version=entry.price_version,
        rating=entry.rating,
        estimated=entry.estimated,
        occurred_at=entry.occurred_at,
        reason=entry.reason,
    )
