"""The consumer: from either bus into the ledger, once, with what cannot be booked set aside."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import httpx
import pytest
import structlog
from redis.asyncio import Redis
from sqlalchemy import text

from ias.billing.settings import BillingSettings
from ias.billing.wiring import assemble_consumer
from ias.billing.workers.usage_consumer import UsageConsumer
from ias.contracts.events import USAGE_TOPIC
from ias.kit import bus
from ias.kit.bus.redis_streams import dead_letter_stream_name
from ias.kit.database import Database
from tests.billing.conftest import create_price, settings_for
from tests.billing.usage import broken, eventually, make_record, message, read_books, shuffled_deliveries

Consuming = Callable[[], AbstractAsyncContextManager[UsageConsumer]]


@pytest.fixture(params=["redis", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def consuming(billing_database: str, redis_url: str, bus_url: str) -> Consuming:
    """Runs a consumer while the block lasts."""

    @asynccontextmanager
    async def run() -> AsyncIterator[UsageConsumer]:
        told = settings_for(billing_database, redis_url).model_dump()
        consumer = assemble_consumer(BillingSettings(**(told | {"bus_url": bus_url})))
        stop = asyncio.Event()
        running = asyncio.create_task(consumer.run(stop))
        try:
            yield consumer
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)

    return run


async def publish(bus_url: str, *bodies: bytes) -> None:
    publisher = bus.open_publisher(bus_url)
    for body in bodies:
        await publisher.publish(USAGE_TOPIC, body, message_id=str(uuid4()))
    await publisher.close()


async def test_a_record_from_the_bus_is_in_the_ledger_at_its_price(
    billing: httpx.AsyncClient, consuming: Consuming, bus_url: str, org_id: str
) -> None:
    price = await create_price(billing, cached_input_usd_per_million="0.5")
    record = make_record(org_id, price, cost_nano_usd=1_900_000)

    async def booked() -> Any:
        answer = await billing.get("/billing/v1/ledger", params={"org_id": org_id, "request_id": record.request_id})
        return answer.json()["data"]

    async with consuming():
        await publish(bus_url, message(record))
        [entry] = await eventually(booked)
    assert entry["id"] == record.id
    assert entry["cost_usd"] == "0.0019"
    assert (entry["price_id"], entry["price_version"], entry["rating"]) == (price["id"], 1, "rated")
    assert (entry["input_tokens"], entry["cached_input_tokens"], entry["output_tokens"]) == (1000, 200, 500)


async def test_any_number_of_shuffled_deliveries_from_the_bus_books_once(
    billing: httpx.AsyncClient, consuming: Consuming, bus_url: str, org_id: str, database: Database
) -> None:
    price = await create_price(billing)
    records = [make_record(org_id, price, api_key_id=str(UUID(int=i % 5))) for i in range(100)]

    async def all_booked() -> bool:
        return (await read_books(database))["ledger"][0] == 100

    bodies = shuffled_deliveries(records, times=3, batch=7, seed=1)
    async with (
        consuming() as first,
        consuming() as second,
    ):
        await publish(bus_url, *bodies)

        async def all_delivered() -> bool:
            return sum(_count(consumer) for consumer in (first, second)) == 300

        await eventually(all_delivered)
    assert await all_booked()
    assert await read_books(database) == {"ledger": (100, 200_000_000), "hourly": (100, 200_000_000)}


def _count(consumer: UsageConsumer) -> int:
    total = 0.0
    for name in ("ias_billing_ledger_entries_total", "ias_billing_duplicate_deliveries_total"):
        for metric in consumer.registry.collect():
            total += sum(sample.value for sample in metric.samples if sample.name == name)
    return int(total)


async def test_a_message_with_a_bad_record_is_set_aside_after_its_good_ones_are_booked(
    consuming: Consuming, bus_url: str, org_id: str, database: Database
) -> None:
    good, later = make_record(org_id), make_record(org_id)

    async def both_booked() -> bool:
        return (await read_books(database))["ledger"][0] == 2

    async with consuming():
        await publish(bus_url, message(broken(make_record(org_id), org_id="acme"), good), b"junk", message(later))
        await eventually(both_booked)
    reasons = await read_dead_letters(bus_url)
    assert len(reasons) == 2
    assert reasons[0].startswith("1 of 2 records cannot be booked: record 0: ")
    assert reasons[1].startswith("the message cannot be read")


async def read_dead_letters(bus_url: str) -> list[str]:
    if bus_url.startswith("redis"):
        async with Redis.from_url(bus_url) as client:
            return [
                fields[b"reason"].decode()
                for _, fields in await client.xrange(dead_letter_stream_name(USAGE_TOPIC, "billing"))
            ]
    async with await aio_pika.connect(bus_url) as connection:
        queue = await (await connection.channel()).get_queue(f"ias.{USAGE_TOPIC}.billing.dead")
        reasons = []
        while (letter := await queue.get(fail=False, timeout=5)) is not None:
            reasons.append(str(letter.headers["x-ias-reason"]))
            await letter.ack()
        return reasons


async def test_bookings_wait_for_the_database_and_are_not_lost(
    consuming: Consuming, bus_url: str, org_id: str, database: Database
) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE ledger_entries RENAME TO hidden"))

    async def booked() -> bool:
        return (await read_books(database))["ledger"][0] == 1

    with structlog.testing.capture_logs() as logged:
        async with consuming():
            await publish(bus_url, message(make_record(org_id)))

            async def failed() -> bool:
                return any(line["event"] == "message not handled yet" for line in logged)

            await eventually(failed)
            async with database.transaction() as connection:
                await connection.execute(text("ALTER TABLE hidden RENAME TO ledger_entries"))
            await eventually(booked)
