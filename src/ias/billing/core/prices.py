"""Prices: what a model costs, from when on, for all orgs or for one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

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
from ias.kit.problems import FieldError, InvalidError

_WHAT_COUNTS = (
    "effective_until",
    "input_nano_usd_per_million",
    "cached_input_nano_usd_per_million",
    "output_nano_usd_per_million",
    "request_nano_usd",
)
"""Prices that agree in these are the same price."""


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price that is asked for, amounts in USD: per million tokens, and for each request."""

    org_id: UUID | None
    """None: for all orgs that have no price of their own."""
    model: str
    input_usd_per_million: str
    output_usd_per_million: str
    cached_input_usd_per_million: str | None
    """None: as the input price."""
    request_usd: str
    effective_at: datetime | None
    """None: from now on."""
    effective_until: datetime | None
    """None: until a later price takes effect."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a catalogue."""

    created: list[Price]
    unchanged: int
    """Entries that say what is in force already."""


class Prices:
    """Adds and lists prices. A price is never changed: the next one takes its place when it takes effect."""

    def __init__(self, database: Database, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    async def create(self, access: Access, new: NewPrice) -> Price:
        """Add a price and tell the gateways.

        Raises:
            ForbiddenError: the caller does not administer the platform.
            InvalidError: an amount is not one, or the price ends before it begins.
        """
        access.on_platform()
        price = _make(new, access.actor.sub, "", datetime.now(UTC))
        async with self._database.transaction() as connection:
            await _raise_versions(connection, [price])
            added = await _add(connection, access, price)
        await self._publish([added])
        return added

    async def import_all(self, access: Access, catalogue: Sequence[NewPrice]) -> Imported:
        """Add what a catalogue says that is not in force already, all of it or nothing. Raises as `create` does."""
        access.on_platform()
        now = datetime.now(UTC)
        ids = sorted(uuid7() for _ in catalogue)  # of one millisecond their order is chance, and lists go by it
        listed = [
            replace(_make(new, access.actor.sub, f"/prices/{place}", now), id=price_id)
            for place, (new, price_id) in enumerate(zip(catalogue, ids, strict=True))
        ]
        created = []
        async with self._database.transaction() as connection:
            await _raise_versions(connection, listed)
            for price in listed:
                known = await prices.find_price_in_force(connection, price.org_id, price.model, price.effective_at)
                if known is None or any(getattr(known, name) != getattr(price, name) for name in _WHAT_COUNTS):
                    created.append(await _add(connection, access, price))
        await self._publish(created)
        return Imported(created, len(listed) - len(created))

    async def list(self, *, org_id: UUID | None, model: str | None, before: UUID | None, limit: int) -> list[Price]:
        """Prices for all orgs (None) or an org's own, newest first. The caller has shown that they may see the org's."""
        async with self._database.transaction() as connection:
            return await prices.list_prices(connection, org_id=org_id, model=model, before=before, limit=limit)

    async def _publish(self, changed: Sequence[Price]) -> None:
        orgs = {price.org_id for price in changed}
        if None in orgs:
            await self._publishing.publish_prices_or_leave_it()
        for org_id in orgs - {None}:
            if org_id is not None:
                await self._publishing.publish_policy_or_leave_it(org_id)


async def _raise_versions(connection: AsyncConnection, listed: Sequence[Price]) -> None:
    """Lock what the prices are published in, in one order for everybody."""
    orgs = {price.org_id for price in listed}
    if None in orgs:
        await published_documents.raise_version(connection, redis_keys.PRICES, None)
    for org_id in sorted(org_id for org_id in orgs if org_id is not None):
        await published_documents.raise_version(connection, redis_keys.spending_policy(str(org_id)), org_id)


async def _add(connection: AsyncConnection, access: Access, price: Price) -> Price:
    known = await prices.find_price_in_force(connection, price.org_id, price.model, price.effective_at)
    added = replace(price, version=await prices.next_version(connection, price.org_id, price.model))
    await prices.insert_price(connection, added)
    before = _describe(known) if known else None
    change = Change("price.create", added.id, added.org_id, before=before, after=_describe(added))
    await append(connection, "billing", access.cause, change)
    return added


def _make(new: NewPrice, actor: str, pointer: str, now: datetime) -> Price:
    input_price = parse_amount(new.input_usd_per_million, f"{pointer}/input_usd_per_million")
    cached = new.cached_input_usd_per_million
    # Gateways compare whole seconds: rounded down, so that a price without a date is in force at once.
    effective_at = (new.effective_at or now).replace(microsecond=0)
    until = new.effective_until.replace(microsecond=0) if new.effective_until else None
    if until is not None and until < effective_at:
        problem = FieldError(pointer=f"{pointer}/effective_until", detail="It is before the price takes effect.")
        raise InvalidError(f"{problem.pointer}: the price would end before it begins.", errors=[problem])
    return Price(
        id=uuid7(),
        org_id=new.org_id,
        model=new.model,
        version=0,
        effective_at=effective_at,
        effective_until=until,
        input_nano_usd_per_million=input_price,
        cached_input_nano_usd_per_million=(
            input_price if cached is None else parse_amount(cached, f"{pointer}/cached_input_usd_per_million")
        ),
        output_nano_usd_per_million=parse_amount(new.output_usd_per_million, f"{pointer}/output_usd_per_million"),
        request_nano_usd=parse_amount(new.request_usd, f"{pointer}/request_usd"),
        created_at=now,
        created_by=actor,
    )


def _describe(price: Price) -> dict[str, object]:
    """What the audit log says of a price, amounts in USD, of tokens per million."""
    return {
        "model": price.model,
        "version": price.version,
        "effective_at": price.effective_at,
        "effective_until": price.effective_until,
        "input_usd": format_usd(price.input_nano_usd_per_million),
        "cached_input_usd": format_usd(price.cached_input_nano_usd_per_million),
        "output_usd": format_usd(price.output_nano_usd_per_million),
        "request_usd": format_usd(price.request_nano_usd),
    }
