"""Usage records are counted once each: the hourly sums always equal the records."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import text

from ias.analytics.core.counting import Counting
from ias.analytics.settings import AnalyticsSettings
from ias.analytics.wiring import assemble_consumer
from ias.contracts.events import USAGE_TOPIC, UsageRecord
from ias.contracts.usage_messages import check_message
from ias.kit import bus
from ias.kit.database import Database
from tests.analytics.conftest import settings_for
from tests.billing.usage import eventually, id_at, make_record, message, shuffled_deliveries

Consuming = Callable[[], AbstractAsyncContextManager[None]]

_OF_RECORDS = """
    SELECT count(*), count(*) FILTER (WHERE outcome = 'failed'), sum(input_tokens), sum(cached_input_tokens),
           sum(output_tokens), sum(cost_nano_usd), count(*), count(ttft_ms)
    FROM usage_records
"""
_OF_HOURS = """
    SELECT sum(requests), sum(failed), sum(input_tokens), sum(cached_input_tokens),
           sum(output_tokens), sum(cost_nano_usd),
           sum((SELECT sum(n) FROM unnest(duration_histogram) n)), sum((SELECT sum(n) FROM unnest(ttft_histogram) n))
    FROM usage_hourly
"""


async def read_sums(database: Database) -> list[tuple[int, ...]]:
    """The same figures from the records and from the hourly sums."""
    async with database.transaction() as connection:
        rows = [(await connection.execute(text(query))).one() for query in (_OF_RECORDS, _OF_HOURS)]
    return [tuple(int(figure or 0) for figure in row) for row in rows]


def varied_records(org_id: str, count: int) -> list[UsageRecord]:
    now = datetime.now(UTC)
    return [
        make_record(
            org_id,
            id=id_at(now - timedelta(minutes=i % 150)),
            api_key_id=str(UUID(int=i % 5)),
            user_id=None if i % 2 else str(UUID(int=i % 3)),
            model=f"model-{i % 2}",
            outcome=("completed", "failed", "cancelled")[i % 3],
            ttft_ms=None if i % 4 == 0 else float(i),
            duration_ms=float(i * i),
        )
        for i in range(count)
    ]


async def test_sums_equal_records_after_shuffled_repeated_concurrent_deliveries(
    database: Database, org_id: str
) -> None:
    bodies = shuffled_deliveries(varied_records(org_id, 300), times=4, batch=40, seed=3)
    counting = Counting(database)
    outcomes = await asyncio.gather(*(counting.count(check_message(body).records) for body in bodies))
    assert sum(outcome.new for outcome in outcomes) == 300
    assert sum(outcome.known for outcome in outcomes) == 900
    records, hourly = await read_sums(database)
    assert records == hourly
    assert records[:2] == (300, 100)


async def test_a_record_the_database_refuses_does_not_keep_the_others_out(database: Database, org_id: str) -> None:
    records = check_message(message(*(make_record(org_id) for _ in range(3)))).records
    records[1] = msgspec.structs.replace(records[1], model="nul\0")
    outcome = await Counting(database).count(records)
    assert (outcome.new, len(outcome.refusals)) == (2, 1)
    records_read, hourly = await read_sums(database)
    assert records_read == hourly


# ------------------------------------------------------------------ from the bus


@pytest.fixture(params=["redis", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def consuming(analytics_database: str, bus_url: str) -> Consuming:
    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        told: dict[str, Any] = settings_for(analytics_database).model_dump() | {"bus_url": bus_url}
        consumer = assemble_consumer(AnalyticsSettings(**told))
        stop = asyncio.Event()
        running = asyncio.create_task(consumer.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)

    return run


async def test_records_from_the_bus_are_counted_once_and_bad_ones_do_not_stop_the_rest(
    consuming: Consuming, bus_url: str, database: Database, org_id: str
) -> None:
    records = varied_records(org_id, 40)
    bodies = shuffled_deliveries(records[:-1], times=3, batch=9, seed=4)
    publisher = bus.open_publisher(bus_url)
    for body in [b"junk", message({"id": "bad"}, records[0]), *bodies, message(records[-1])]:
        await publisher.publish(USAGE_TOPIC, body, message_id=str(uuid4()))
    await publisher.close()

    async def all_counted() -> bool:
        return (await read_sums(database))[0][0] == 40

    async with consuming():
        await eventually(all_counted)
    of_records, of_hours = await read_sums(database)
    assert of_records == of_hours
