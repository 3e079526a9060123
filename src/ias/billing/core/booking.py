"""Booking: each usage record becomes one ledger entry, at the price it names, however often it is delivered."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store import ledger, prices, spend
from ias.billing.store.ledger import LedgerEntry, Rating
from ias.contracts.ids import follow_up_id
from ias.contracts.money import cost_nano_usd
from ias.contracts.spending import Price
from ias.contracts.usage_messages import CheckedRecord
from ias.kit.database import Database

log = structlog.get_logger("ias.billing")

_PRICES_REMEMBERED_MAX = 10_000
_DATA_ERROR_CLASSES = ("22", "23")
"""SQLSTATE classes: the value does not fit its column; a constraint refuses it. Trying again does not help."""


@dataclass(slots=True)
class Booked:
    """What came of a batch."""

    new: int = 0
    known: int = 0
    """Deliveries of records that were booked before."""
    ratings: Counter[Rating] = field(default_factory=Counter)
    """Of the new entries."""
    refusals: list[str] = field(default_factory=list)


class Booking:
    """Books usage records. Remembers prices, which never change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._prices: dict[UUID, Price] = {}

    async def book(self, records: Sequence[CheckedRecord]) -> Booked:
        """Book records in one transaction; those the database refuses for what they hold are named in the result.

        Raises:
            DBAPIError, OSError, TimeoutError: the database is away or busy; nothing was booked.
        """
        if not records:
            return Booked()
        await self._learn_prices({record.price_id for record in records if record.price_id})
        try:
            return await self._book_together(records)
        except DBAPIError as error:
            if not _is_about_the_data(error):
                raise
            log.warning("a record of the batch is refused by the database", error=str(error.orig)[:200])
        return await self._book_one_by_one(records)

    async def _book_together(self, records: Sequence[CheckedRecord]) -> Booked:
        entries = {record.id: self._rate(record) for record in records}
        async with self._database.transaction() as connection:
            new_ids = await ledger.insert_entries(connection, list(entries.values()))
            new = [entry for entry_id, entry in entries.items() if entry_id in new_ids]
            if len(new_ids) < len(entries):
                new += await self._book_differences(connection, [e for e in entries.values() if e.id not in new_ids])
            await spend.add_entries(connection, new)
        return Booked(new=len(new), known=len(records) - len(new), ratings=Counter(entry.rating for entry in new))

    async def _book_differences(self, connection: AsyncConnection, known: list[LedgerEntry]) -> list[LedgerEntry]:
        """Of records whose reservation was booked in their place: what they make the cost differ by."""
        reserved = await ledger.list_reserved(connection, [entry.id for entry in known])
        differences = [
            replace(entry, id=follow_up_id(entry.id), cost_nano_usd=entry.cost_nano_usd - reserved[entry.id])
            for entry in known
            if entry.id in reserved
        ]
        new_ids = await ledger.insert_entries(connection, differences) if differences else set()
        return [entry for entry in differences if entry.id in new_ids]

    async def _book_one_by_one(self, records: Sequence[CheckedRecord]) -> Booked:
        total = Booked()
        for record in records:
            try:
                one = await self._book_together([record])
            except DBAPIError as error:
                if not _is_about_the_data(error):
                    raise
                total.refusals.append(f"record {record.id}: {str(error.orig)[:200]}")
            else:
                total.new += one.new
                total.known += one.known
                total.ratings += one.ratings
        return total

    async def _learn_prices(self, ids: set[UUID]) -> None:
        unknown = ids - self._prices.keys()
        if not unknown:
            return
        if len(self._prices) > _PRICES_REMEMBERED_MAX:
            self._prices.clear()
            unknown = ids
        async with self._database.transaction() as connection:
            found = await prices.list_prices_by_id(connection, unknown)
        self._prices.update({price.id: price.published() for price in found})

    def _rate(self, record: CheckedRecord) -> LedgerEntry:
        price = self._prices.get(record.price_id) if record.price_id else None
        cost, rating = _cost_of(record, price)
        return LedgerEntry(
            id=record.id,
            kind="usage",
            org_id=record.org_id,
            project_id=record.project_id,
            api_key_id=record.api_key_id,
            user_id=record.user_id,
            service_account_id=record.service_account_id,
            request_id=record.request_id,
            endpoint=record.endpoint,
            model=record.model,
            backend_id=record.backend_id,
            streamed=record.streamed,
            status=record.status,
            outcome=record.outcome,
            input_tokens=record.input_tokens,
            cached_input_tokens=record.cached_input_tokens,
            output_tokens=record.output_tokens,
            cost_nano_usd=cost,
            settled_nano_usd=record.cost_nano_usd,
            price_id=record.price_id,
            price_version=price.version if price else record.price_version,
            rating=rating,
            estimated=record.estimated,
            occurred_at=record.occurred_at,
            decision=record.decision,
        )


def _cost_of(record: CheckedRecord, price: Price | None) -> tuple[int, Rating]:
    """What is booked: the price's own result where there is a price, else the gateway's figure, marked as such."""
    if record.price_id is None:
        return record.cost_nano_usd, "unpriced"
    if price is None:
        return record.cost_nano_usd, "price_unknown"
    cost = cost_nano_usd(
        price,
        input_tokens=record.input_tokens,
        cached_input_tokens=record.cached_input_tokens,
        output_tokens=record.output_tokens,
    )
    return cost, "rated" if cost == record.cost_nano_usd else "repriced"


def _is_about_the_data(error: DBAPIError) -> bool:
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(_DATA_ERROR_CLASSES)
