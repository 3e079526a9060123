"""Spending counters: complete before anything is admitted, rebuilt when Redis lost them, and otherwise left alone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from ias.billing.core.booking import Booking
from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.spending import SpendingPolicy, window_id
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget, create_price
from tests.billing.gateway import Gateway
from tests.billing.usage import PROJECT_ID, USER_ID, eventually, id_at, make_record, message
from tests.kit.token_issuer import TokenIssuer

COST = 2_000_000
"""Of every record here, in nano-USD."""


@pytest.fixture
async def app(run_billing: RunningBilling, redis: Redis) -> AsyncIterator[FastAPI]:
    async with run_billing() as app:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        yield app


@pytest.fixture
async def billing(app: FastAPI, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, issuer.platform_admin()) as client:
        yield client


async def book(database: Database, *records: UsageRecord) -> None:
    await Booking(database).book(check_message(message(*records)).records)


async def read_counter(redis: Redis, org_id: str, budget: dict[str, Any]) -> dict[str, int]:
    window = window_id(budget["window"], datetime.now(UTC).timestamp())
    stored = await redis.hgetall(redis_keys.budget_counter(org_id, budget["id"], window))
    return {name.decode(): int(stored[name]) for name in (b"settled", b"reserved", b"from_ledger") if name in stored}


async def gateway_serves(redis: Redis, org_id: str, budget: dict[str, Any], cost: int = COST) -> UsageRecord:
    """What a gateway that knows the budget does: reserve and settle by its own scripts; gives the record to be booked."""
    record = make_record(org_id, decision={"budgets": [budget["id"]]}, cost_nano_usd=cost)
    gateway = Gateway(redis, org_id, budget, record)
    await gateway.reserve(cost * 2)
    assert await gateway.settle(cost) == 1
    return record


async def test_the_marker_is_set_on_first_start(app: FastAPI, redis: Redis) -> None:
    assert await redis.exists(redis_keys.COUNTERS_READY)


async def test_a_budget_made_mid_window_begins_with_what_its_scope_spent_in_it(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    now = datetime.now(UTC)
    last_window = now - timedelta(days=32)
    await book(
        database,
        make_record(org_id),
        make_record(org_id, project_id=str(uuid4()), model="other"),
        make_record(org_id, id=id_at(last_window)),
        make_record(str(uuid4())),
    )
    expected = {
        ("org", org_id, "month"): 2,
        ("org", org_id, "total"): 3,
        ("project", PROJECT_ID, "month"): 1,
        ("user", USER_ID, "month"): 2,
        ("model", "other", "total"): 1,
        ("api_key", str(uuid4()), "total"): 0,
    }
    for (kind, scope_id, window), entries in expected.items():
        budget = await create_budget(billing, org_id, scope={"kind": kind, "id": scope_id}, window=window)
        assert (await read_counter(redis, org_id, budget))["settled"] == entries * COST, kind
        assert (budget["spent_usd"], budget["reserved_usd"]) == (f"0.00{entries * 2}" if entries else "0.00", "0.00")


async def test_a_policy_is_never_published_before_its_counters(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    await book(database, make_record(org_id))
    seen: list[int | None] = []

    async def watch() -> None:
        while True:
            stored = await redis.get(redis_keys.spending_policy(org_id))
            if stored:
                for budget in msgspec.json.decode(stored, type=SpendingPolicy).budgets:
                    key = redis_keys.budget_counter(org_id, budget.id, "total")
                    seen.append(await redis.hget(key, "settled"))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for _ in range(5):
        await create_budget(billing, org_id, window="total")
    watching.cancel()
    assert seen
    assert {int(settled or 0) for settled in seen} == {COST}


async def test_requests_admitted_before_a_gateway_heard_of_a_budget_are_added_when_booked(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    early = make_record(org_id)
    budget = await create_budget(billing, org_id)
    counted_by_gateway = await gateway_serves(redis, org_id, budget)
    unaware = make_record(org_id, decision={"budgets": []})
    await book(database, early, counted_by_gateway, unaware, make_record(org_id))

    async def all_added() -> bool:
        return (await read_counter(redis, org_id, budget))["settled"] == 4 * COST

    await eventually(all_added)
    await asyncio.sleep(0.3)
    assert await read_counter(redis, org_id, budget) == {"settled": 4 * COST, "reserved": 0, "from_ledger": 3 * COST}


async def test_an_intact_redis_is_never_touched(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str, run_billing: RunningBilling
) -> None:
    budget = await create_budget(billing, org_id)
    await book(database, await gateway_serves(redis, org_id, budget))
    before = await read_counter(redis, org_id, budget)
    await redis.hincrby(redis_keys.budget_counter(org_id, budget["id"], "2020-01"), "settled", 7)
    async with run_billing():
        await asyncio.sleep(0.5)
    assert await read_counter(redis, org_id, budget) == before == {"settled": COST, "reserved": 0, "from_ledger": 0}
    assert await redis.hgetall(redis_keys.budget_counter(org_id, budget["id"], "2020-01")) == {b"settled": b"7"}


async def test_a_marker_that_was_taken_away_comes_back_without_touching_counters(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id)
    await book(database, await gateway_serves(redis, org_id, budget))
    await redis.delete(redis_keys.COUNTERS_READY)
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
    assert (await read_counter(redis, org_id, budget))["settled"] == COST


async def test_lost_counters_are_rebuilt_from_the_ledger_before_the_marker_returns(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    price = await create_price(billing)
    budgets = [await create_budget(billing, org_id, window=window) for window in ("day", "week", "month", "total")]
    booked = [await gateway_serves(redis, org_id, budgets[0]) for _ in range(3)]
    await book(database, *booked)
    await redis.flushall()
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
    for budget in budgets:
        assert await read_counter(redis, org_id, budget) == {
            "settled": 3 * COST,
            "reserved": 0,
            "from_ledger": 3 * COST,
        }
    policy = msgspec.json.decode(await redis.get(redis_keys.spending_policy(org_id)) or b"", type=SpendingPolicy)
    assert {known.id for known in policy.budgets} == {budget["id"] for budget in budgets}
    assert price["id"].encode() in (await redis.get(redis_keys.PRICES) or b"")


async def test_records_on_their_way_when_redis_was_lost_are_added_when_booked_and_later_ones_are_not(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id)
    on_its_way = [await gateway_serves(redis, org_id, budget) for _ in range(2)]
    await redis.flushall()
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
    assert (await read_counter(redis, org_id, budget))["settled"] == 0
    later = await gateway_serves(redis, org_id, budget)
    await book(database, *on_its_way, later)

    async def all_added() -> bool:
        return (await read_counter(redis, org_id, budget))["settled"] == 3 * COST

    await eventually(all_added)
    await asyncio.sleep(0.3)
    assert (await read_counter(redis, org_id, budget)) == {
        "settled": 3 * COST,
        "reserved": 0,
        "from_ledger": 2 * COST,
    }


async def test_several_replicas_set_up_a_counter_once(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str, run_billing: RunningBilling
) -> None:
    budget = await create_budget(billing, org_id)
    await book(database, make_record(org_id))
    async with run_billing(), run_billing():
        for _ in range(5):
            await redis.flushall()
            await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
            await asyncio.sleep(0.1)
    assert (await read_counter(redis, org_id, budget))["settled"] == COST


async def test_a_counter_of_a_deleted_budget_goes_away(billing: httpx.AsyncClient, redis: Redis, org_id: str) -> None:
    budget = await create_budget(billing, org_id, window="total")
    counter = redis_keys.budget_counter(org_id, budget["id"], "total")
    assert await redis.ttl(counter) == -1
    await billing.delete(f"/billing/v1/budgets/{budget['id']}")
    assert 0 < await redis.ttl(counter) <= 2 * 86_400
