"""Prices: rows that are added and never changed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import PRICES
from ias.contracts import spending


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from `effective_at` on."""

    id: UUID
    model: str
    version: int
    effective_at: datetime
    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int
    created_at: datetime
    created_by: str

    def published(self) -> spending.Price:
        """The form in which gateways know it."""
        return spending.Price(
            id=str(self.id),
            version=self.version,
            model=self.model,
            effective_at=int(self.effective_at.timestamp()),
            input_nano_usd_per_million=self.input_nano_usd_per_million,
            cached_input_nano_usd_per_million=self.cached_input_nano_usd_per_million,
            output_nano_usd_per_million=self.output_nano_usd_per_million,
        )


async def insert_price(connection: AsyncConnection, price: Price) -> None:
    """Add a price."""
    await connection.execute(insert(PRICES).values(asdict(price)))


async def next_version(connection: AsyncConnection, model: str) -> int:
    """The version of the model's next price. The caller holds the lock on the price table's version."""
    latest = await connection.scalar(select(func.max(PRICES.c.version)).where(PRICES.c.model == model))
    return (latest or 0) + 1


async def list_prices(
    connection: AsyncConnection, *, model: str | None, before: UUID | None, limit: int
) -> list[Price]:
    """Prices, newest first, those of one model when given."""
    query = select(PRICES).order_by(PRICES.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(PRICES.c.model == model)
    if before is not None:
        query = query.where(PRICES.c.id < before)
    return [Price(**row) for row in (await connection.execute(query)).mappings()]


async def list_prices_since(connection: AsyncConnection, moment: datetime) -> list[Price]:
    """Every price that is or was in force at the moment or takes effect later, in the order of its effect."""
    in_force = (
        select(PRICES.c.id)
        .ext(distinct_on(PRICES.c.model))
        .where(PRICES.c.effective_at < moment)
        .order_by(PRICES.c.model, PRICES.c.effective_at.desc(), PRICES.c.version.desc())
    )
    query = (
        select(PRICES)
        .where(or_(PRICES.c.effective_at >= moment, PRICES.c.id.in_(in_force)))
        .order_by(PRICES.c.model, PRICES.c.effective_at, PRICES.c.version)
    )
    return [Price(**row) for row in (await connection.execute(query)).mappings()]


async def list_prices_by_id(connection: AsyncConnection, ids: Iterable[UUID]) -> list[Price]:
    """The prices with these ids; unknown ids are left out."""
    rows = await connection.execute(select(PRICES).where(PRICES.c.id.in_(list(ids))))
    return [Price(**row) for row in rows.mappings()]
