"""Usage records become ledger entries: each once, at the right price, whatever the deliveries."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from ias.billing.core.booking import Booking
from ias.contracts.events import UsageRecord
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import create_price
from tests.billing.usage import make_record, message, read_books, shuffled_deliveries


async def book(database: Database, *records: UsageRecord) -> Any:
    return await Booking(database).book(check_message(message(*records)).records)


async def test_concurrent_bookings_of_the_same_records_never_double_or_deadlock(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    price = await create_price(billing)
    records = [make_record(org_id, price, api_key_id=str(UUID(int=i % 7))) for i in range(300)]
    bodies = shuffled_deliveries(records, times=4, batch=40, seed=2)
    booking = Booking(database)
    outcomes = await asyncio.gather(*(booking.book(check_message(body).records) for body in bodies))
    assert sum(outcome.new for outcome in outcomes) == 300
    assert sum(outcome.known for outcome in outcomes) == 900
    assert await read_books(database) == {"ledger": (300, 600_000_000), "hourly": (300, 600_000_000)}


async def test_a_record_twice_in_one_message_is_booked_once(database: Database, org_id: str) -> None:
    record = make_record(org_id)
    assert (await book(database, record, record)).new == 1
    assert await read_books(database) == {"ledger": (1, 2_000_000), "hourly": (1, 2_000_000)}


@pytest.mark.parametrize(("settled", "rating"), [(2_000_000, "rated"), (1, "repriced"), (2_000_001, "repriced")])
async def test_what_the_price_says_is_booked_and_a_mismatch_is_marked(
    billing: httpx.AsyncClient, database: Database, org_id: str, settled: int, rating: str
) -> None:
    price = await create_price(billing)
    outcome = await book(database, make_record(org_id, price, cost_nano_usd=settled))
    assert outcome.ratings == {rating: 1}
    [entry] = (await billing.get("/billing/v1/ledger", params={"org_id": org_id})).json()["data"]
    assert entry["rating"] == rating
    assert (await read_books(database))["ledger"] == (1, 2_000_000)


async def test_a_record_keeps_its_price_when_a_later_one_takes_effect(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    old = await create_price(billing)
    record = make_record(org_id, old)
    await create_price(billing, input_usd_per_million="100")
    await book(database, record)
    [entry] = (await billing.get("/billing/v1/ledger", params={"org_id": org_id})).json()["data"]
    assert (entry["price_version"], entry["cost_usd"]) == (1, "0.002")


@pytest.mark.parametrize(
    ("price_id", "rating"), [(None, "unpriced"), ("0190f3c0-0000-7000-8000-00000000dead", "price_unknown")]
)
async def test_a_record_without_a_known_price_is_booked_and_marked(
    database: Database, org_id: str, price_id: str | None, rating: str
) -> None:
    outcome = await book(database, make_record(org_id, price_id=price_id))
    assert outcome.ratings == {rating: 1}


async def test_records_of_a_month_without_a_partition_are_booked_all_the_same(database: Database, org_id: str) -> None:
    long_ago = UUID("0170ac4e-0000-7000-8000-000000000001")
    far_ahead = UUID("02f0ac4e-0000-7000-8000-000000000001")
    assert (await book(database, make_record(org_id, id=long_ago), make_record(org_id, id=far_ahead))).new == 2


async def test_a_record_the_database_refuses_does_not_keep_the_others_out(database: Database, org_id: str) -> None:
    records = check_message(message(*(make_record(org_id) for _ in range(4)))).records
    refused = records[2] = msgspec.structs.replace(records[2], model="nul\0")
    outcome = await Booking(database).book(records)
    assert outcome.new == 3
    assert [reason.partition(":")[0] for reason in outcome.refusals] == [f"record {refused.id}"]
