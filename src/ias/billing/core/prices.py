"""Prices: what a model costs, from when on."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from ias.billing.core.amounts import parse_amount
from ias.billing.core.publishing import Publishing
from ias.billing.store import prices, published_documents
from ias.billing.store.prices import Price
from ias.contracts import redis_keys
from ias.contracts.ids import uuid7
from ias.contracts.money import format_usd
from ias.kit.access import Access
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price that is asked for, amounts in USD per million tokens."""

    model: str
    input_usd_per_million: str
    output_usd_per_million: str
    cached_input_usd_per_million: str | None
    """None: as the input price."""
    effective_at: datetime | None
    """None: from now on."""


class Prices:
    """Adds and lists prices. A price is never changed: the next one takes its place when it takes effect."""

    def __init__(self, database: Database, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    async def create(self, access: Access, new: NewPrice) -> Price:
        """Add a price and tell the gateways.

        Raises:
            ForbiddenError: the caller does not administer the platform.
            InvalidError: an amount is not one.
        """
        actor = access.on_platform()
        input_price = parse_amount(new.input_usd_per_million, "/input_usd_per_million")
        cached = new.cached_input_usd_per_million
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, redis_keys.PRICES, None)
            price = Price(
                id=uuid7(),
                model=new.model,
                version=await prices.next_version(connection, new.model),
                # Gateways compare whole seconds: rounded down, so that a price without a date is in force at once.
                effective_at=(new.effective_at or now).astimezone(UTC).replace(microsecond=0),
                input_nano_usd_per_million=input_price,
                cached_input_nano_usd_per_million=(
                    input_price if cached is None else parse_amount(cached, "/cached_input_usd_per_million")
                ),
                output_nano_usd_per_million=parse_amount(new.output_usd_per_million, "/output_usd_per_million"),
                created_at=now,
                created_by=actor.sub,
            )
            await prices.insert_price(connection, price)
            await append(connection, "billing", access.cause, Change("price.create", price.id, after=_describe(price)))
        await self._publishing.publish_prices_or_leave_it()
        return price

    async def list(self, *, model: str | None, before: UUID | None, limit: int) -> list[Price]:
        """Prices, newest first."""
        async with self._database.transaction() as connection:
            return await prices.list_prices(connection, model=model, before=before, limit=limit)


def _describe(price: Price) -> dict[str, object]:
    """What the audit log says of a price, amounts in USD per million tokens."""
    return {
        "model": price.model,
        "version": price.version,
        "effective_at": price.effective_at,
        "input_usd": format_usd(price.input_nano_usd_per_million),
        "cached_input_usd": format_usd(price.cached_input_nano_usd_per_million),
        "output_usd": format_usd(price.output_nano_usd_per_million),
    }
