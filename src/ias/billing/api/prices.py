"""`/billing/v1/prices`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from ias.billing.api.parts import CursorsPart, PricesPart
from ias.billing.api.schemas import ModelName, UsdText
from ias.billing.core.prices import NewPrice
from ias.billing.store.prices import Price
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/prices", tags=["prices"])

_IMPORTED_MAX = 1_000


class PriceBody(Body):
    """What a model costs from `effective_at` on (from now on when absent): per million tokens, and for each request."""

    org_id: UUID | None = Field(
        None, description="The one org that it is for, in place of what all pay. Absent: for all orgs."
    )
    model: ModelName
    input_usd_per_million: UsdText
    output_usd_per_million: UsdText
    cached_input_usd_per_million: UsdText | None = Field(None, description="Absent: as the input price.")
    request_usd: UsdText = Field("0", description="For each request that is served, besides its tokens.")
    effective_at: Moment | None = Field(None, description="Absent: now. Full seconds count.")
    effective_until: Moment | None = Field(
        None,
        description="From then on it is as if the price were not there: an org pays what all pay, and a model that has no other"
        " price has none. Absent: until a later price takes effect.",
    )


class CatalogueBody(Body):
    """Prices of any number of models and orgs. Those that say what is in force already are passed over."""

    prices: list[PriceBody] = Field(min_length=1, max_length=_IMPORTED_MAX)


class PriceAnswer(Answer):
    """A price. `version` counts the prices of the model (for the org); ledger entries name it."""

    id: UUID
    org_id: UUID | None
    model: str
    version: int
    input_usd_per_million: str
    cached_input_usd_per_million: str
    output_usd_per_million: str
    request_usd: str
    effective_at: datetime
    effective_until: datetime | None
    created_at: datetime
    created_by: str


class ImportAnswer(Answer):
    """What came of a catalogue."""

    created: list[PriceAnswer]
    unchanged: int = Field(description="Entries that say what is in force already.")


@router.post("", status_code=201)
async def create_price(
    body: PriceBody,
    access: Annotated[Access, requires(Permission.PRICES_WRITE)],
    prices: PricesPart,
) -> PriceAnswer:
    """Set what a model costs from a moment on. Prices are never changed; the next one takes its place."""
    price = await prices.create(access, NewPrice(**body.model_dump()))
    return render_price(price)


@router.post("/imports")
async def import_prices(
    body: CatalogueBody,
    access: Annotated[Access, requires(Permission.PRICES_WRITE)],
    prices: PricesPart,
) -> ImportAnswer:
    """Bring prices to what a catalogue says, all of it or nothing. A dry run shows each price before and after."""
    imported = await prices.import_all(access, [NewPrice(**price.model_dump()) for price in body.prices])
    return ImportAnswer(created=[render_price(price) for price in imported.created], unchanged=imported.unchanged)


@router.get("")
async def list_prices(
    *,
    access: Annotated[Access, requires(Permission.PRICES_READ)],
    prices: PricesPart,
    cursors: CursorsPart,
    org_id: Annotated[UUID | None, Query(description="This org's own prices, in place of those for all orgs.")] = None,
    model: Annotated[ModelName | None, Query(description="Only this model's prices.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[PriceAnswer]:
    """All prices, past, present and to come, newest first."""
    if org_id is not None:
        access.in_org(str(org_id))
    filters = f"prices\0{org_id}\0{model}"
    rows = await prices.list(org_id=org_id, model=model, before=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([render_price(row) for row in rows], limit, filters)


def render_price(price: Price) -> PriceAnswer:
    """The price on the wire."""
    return PriceAnswer(
        id=price.id,
        org_id=price.org_id,
        model=price.model,
        version=price.version,
        input_usd_per_million=format_usd(price.input_nano_usd_per_million),
        cached_input_usd_per_million=format_usd(price.cached_input_nano_usd_per_million),
        output_usd_per_million=format_usd(price.output_nano_usd_per_million),
        request_usd=format_usd(price.request_nano_usd),
        effective_at=price.effective_at,
        effective_until=price.effective_until,
        created_at=price.created_at,
        created_by=price.created_by,
    )
