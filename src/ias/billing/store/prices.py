"""Prices: rows that are added and never changed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import PRICES
from ias.contracts import spending


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from `effective_at` on, all orgs or one of them."""

    id: UUID
    org_id: UUID | None
    model: str
    version: int
    effective_at: datetime
    effective_until: datetime | None
    input_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    output_nano_usd_per_million: int
    request_nano_usd: int
    created_at: datetime
    created_by: str

    def published(self) -> spending.Price:
        """The form in which gateways know it."""
        return spending.Price(
            id=str(self.id),
            version=self.version,
            model=self.model,
            effective_at=int(self.effective_at.timestamp()),
            effective_until=int(self.effective_until.timestamp()) if self.effective_until else None,
            input_nano_usd_per_million=self.input_nano_usd_per_million,
            cached_input_nano_usd_per_million=self.cached_input_nano_usd_per_million,
            output_nano_usd_per_million=self.output_nano_usd_per_million,
            request_nano_usd=self.request_nano_usd,
        )


def publish_by_model(rows: Iterable[Price]) -> dict[str, tuple[spending.Price, ...]]:
    """Prices in the order of their effect, by model, in the form in which gateways know them."""
    by_model: dict[str, list[spending.Price]] = defaultdict(list)
    for row in rows:
        by_model[row.model].append(row.published())
    return {model: tuple(listed) for model, listed in by_model.items()}


async def insert_price(connection: AsyncConnection, price: Price) -> None:
    """Add a price."""
    await connection.execute(insert(PRICES).values(asdict(price)))


async def next_version(connection: AsyncConnection, org_id: UUID | None, model: str) -> int:
    """The version of the model's next price. The caller holds the lock on the version of the document it is published in."""
    table = PRICES
    query = select(func.max(table.c.version)).where(table.c.org_id.is_not_distinct_from(org_id), table.c.model == model)
    return (await connection.scalar(query) or 0) + 1


async def find_price_in_force(
    connection: AsyncConnection, org_id: UUID | None, model: str, moment: datetime
) -> Price | None:
    """The price among all orgs' (None) or an org's own that is in force at a moment, also when its end has come."""
    table = PRICES
    query = (
        select(table)
        .where(table.c.org_id.is_not_distinct_from(org_id), table.c.model == model, table.c.effective_at <= moment)
        .order_by(table.c.effective_at.desc(), table.c.version.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return Price(**row) if row else None


async def list_prices(
    connection: AsyncConnection, *, org_id: UUID | None, model: str | None, before: UUID | None, limit: int
) -> list[Price]:
    """Prices for all orgs (None) or an org's own, newest first, those of one model when given."""
    query = select(PRICES).where(PRICES.c.org_id.is_not_distinct_from(org_id)).order_by(PRICES.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(PRICES.c.model == model)
    if before is not None:
        query = query.where(PRICES.c.id < before)
    return [Price(**row) for row in (await connection.execute(query)).mappings()]


async def list_common_prices_since(connection: AsyncConnection, moment: datetime) -> list[Price]:
    """Prices for all orgs that are or were in force at the moment or take effect later, in the order of their effect."""
    return await _list_since(connection, PRICES.c.org_id.is_(None), moment)


async def list_own_prices_since(connection: AsyncConnection, org_id: UUID | None, moment: datetime) -> list[Price]:
    """The same of an org's own prices, or of those of every org that has some (None)."""
    column = PRICES.c.org_id
    return await _list_since(connection, column.is_not(None) if org_id is None else column == org_id, moment)


async def _list_since(connection: AsyncConnection, whose: ColumnElement[bool], moment: datetime) -> list[Price]:
    table = PRICES
    in_force = (
        select(table.c.id)
        .ext(distinct_on(table.c.org_id, table.c.model))
        .where(whose, table.c.effective_at < moment)
        .order_by(table.c.org_id, table.c.model, table.c.effective_at.desc(), table.c.version.desc())
    )
    query = (
        select(table)
        .where(whose, or_(table.c.effective_at >= moment, table.c.id.in_(in_force)))
        .order_by(table.c.model, table.c.effective_at, table.c.version)
    )
    return [Price(**row) for row in (await connection.execute(query)).mappings()]


async def list_prices_by_id(connection: AsyncConnection, ids: Iterable[UUID]) -> list[Price]:
    """The prices with these ids; unknown ids are left out."""
    rows = await connection.execute(select(PRICES).where(PRICES.c.id.in_(list(ids))))
    return [Price(**row) for row in rows.mappings()]
