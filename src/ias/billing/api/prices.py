"""`/billing/v1/prices`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, Field

from ias.billing.api.parts import CursorsPart, PricesPart
from ias.billing.api.schemas import ModelName, UsdText
from ias.billing.core.prices import NewPrice
from ias.billing.store.prices import Price
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/prices", tags=["prices"])


class PriceBody(Body):
    """What a model costs from `effective_at` on (from now on when absent), per million tokens."""

    model: ModelName
    input_usd_per_million: UsdText
    output_usd_per_million: UsdText
    cached_input_usd_per_million: UsdText | None = Field(None, description="Absent: as the input price.")
    effective_at: AwareDatetime | None = Field(None, description="Absent: now. Full seconds count.")


class PriceAnswer(Answer):
    """A price. `version` counts the prices of the model; ledger entries name it."""

    id: UUID
    model: str
    version: int
    input_usd_per_million: str
    cached_input_usd_per_million: str
    output_usd_per_million: str
    effective_at: datetime
    created_at: datetime
    created_by: str


@router.post("", status_code=201)
async def create_price(
    body: PriceBody,
    access: Annotated[Access, requires(Permission.PRICES_WRITE)],
    prices: PricesPart,
) -> PriceAnswer:
    """Set what a model costs from a moment on. Prices are never changed; the next one takes its place."""
    price = await prices.create(access, NewPrice(**body.model_dump()))
    return render_price(price)


@router.get("", dependencies=[requires(Permission.PRICES_READ)])
async def list_prices(
    *,
    prices: PricesPart,
    cursors: CursorsPart,
    model: Annotated[ModelName | None, Query(description="Only this model's prices.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[PriceAnswer]:
    """All prices, past, present and to come, newest first."""
    filters = f"prices\0{model}"
    rows = await prices.list(model=model, before=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([render_price(row) for row in rows], limit, filters)


def render_price(price: Price) -> PriceAnswer:
    """The price on the wire."""
    return PriceAnswer(
        id=price.id,
        model=price.model,
        version=price.version,
        input_usd_per_million=format_usd(price.input_nano_usd_per_million),
        cached_input_usd_per_million=format_usd(price.cached_input_nano_usd_per_million),
        output_usd_per_million=format_usd(price.output_nano_usd_per_million),
        effective_at=price.effective_at,
        created_at=price.created_at,
        created_by=price.created_by,
    )
