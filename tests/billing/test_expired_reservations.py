"""A gateway that died: what it had reserved is booked, and replaced by what was used should it say so after all."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from ias.billing.core.booking import Booking
from ias.contracts import redis_keys
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.gateway import Gateway
from tests.billing.usage import API_KEY_ID, PROJECT_ID, eventually, make_record, message, read_books
from tests.kit.token_issuer import TokenIssuer

RESERVED, COST = 7_000_000, 2_000_000


@pytest.fixture
async def app(run_billing: RunningBilling, redis: Redis) -> AsyncIterator[FastAPI]:
    async with run_billing() as app:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        yield app


@pytest.fixture
async def billing(app: FastAPI, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, issuer.platform_admin()) as client:
        yield client


def gateway_for(redis: Redis, org_id: str, budget: dict[str, Any]) -> Gateway:
    return Gateway(redis, org_id, budget, make_record(org_id, decision={"budgets": [budget["id"]]}))


async def entries(billing: httpx.AsyncClient, org_id: str) -> list[dict[str, Any]]:
    return (await billing.get("/billing/v1/ledger", params={"org_id": org_id})).json()["data"]


async def spend_of(billing: httpx.AsyncClient, budget: dict[str, Any]) -> tuple[str, str]:
    shown = (await billing.get(f"/billing/v1/budgets/{budget['id']}")).json()
    return shown["spent_usd"], shown["reserved_usd"]


async def test_what_a_dead_gateway_had_reserved_is_booked_as_an_estimate_once(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="total")
    gateway = gateway_for(redis, org_id, budget)
    await gateway.reserve(RESERVED, lifetime_s=0)
    [entry] = await eventually(lambda: entries(billing, org_id))
    assert (entry["id"], entry["request_id"]) == (gateway.record.id, gateway.record.request_id)
    assert (entry["cost_usd"], entry["rating"], entry["estimated"], entry["outcome"]) == (
        "0.007",
        "reserved",
        True,
        "expired",
    )
    assert (entry["project_id"], entry["api_key_id"], entry["model"]) == (PROJECT_ID, API_KEY_ID, "tiny")

    async def is_closed() -> bool:
        return await spend_of(billing, budget) == ("0.007", "0.00")

    await eventually(is_closed)
    assert await read_books(database) == {"ledger": (1, RESERVED), "hourly": (1, RESERVED)}


async def test_a_settlement_and_a_record_that_arrive_after_all_replace_the_estimate(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="total")
    gateway = gateway_for(redis, org_id, budget)
    await gateway.reserve(RESERVED, lifetime_s=0)
    await eventually(lambda: entries(billing, org_id))
    assert await gateway.settle(COST) == 1
    for _ in range(2):
        await Booking(database).book(check_message(message(gateway.record)).records)
    assert await read_books(database) == {"ledger": (2, COST), "hourly": (2, COST)}

    async def is_settled() -> bool:
        return await spend_of(billing, budget) == ("0.002", "0.00")

    await eventually(is_settled)
    tokens = [(entry["input_tokens"], entry["output_tokens"]) for entry in await entries(billing, org_id)]
    assert sorted(tokens) == [(0, 0), (1000, 500)]


async def test_a_request_that_was_written_down_but_not_settled_counts_what_it_cost(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="total")
    gateway = gateway_for(redis, org_id, budget)
    await Booking(database).book(check_message(message(gateway.record)).records)
    await gateway.reserve(RESERVED, lifetime_s=0)

    async def is_settled() -> bool:
        return await spend_of(billing, budget) == ("0.002", "0.00")

    await eventually(is_settled)
    assert await read_books(database) == {"ledger": (1, COST), "hourly": (1, COST)}


async def test_what_is_still_being_served_is_left_alone(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="total")
    alive, dead = gateway_for(redis, org_id, budget), gateway_for(redis, org_id, budget)
    await alive.reserve(RESERVED, lifetime_s=60)
    await dead.reserve(RESERVED, lifetime_s=0)
    [entry] = await eventually(lambda: entries(billing, org_id))
    assert entry["id"] == dead.record.id

    async def is_closed() -> bool:
        return await spend_of(billing, budget) == ("0.007", "0.007")

    await eventually(is_closed)
    assert await alive.settle(COST) == 1
    assert await spend_of(billing, budget) == ("0.009", "0.00")


@pytest.mark.parametrize("booked", ["before it is settled", "in time", "late", "never"])
async def test_what_was_held_again_after_a_loss_is_counted_once_and_never_too_little(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str, booked: str
) -> None:
    budget = await create_budget(billing, org_id, window="total")
    gateway = gateway_for(redis, org_id, budget)
    await gateway.reserve(RESERVED)
    await redis.flushall()
    assert await gateway.restore(RESERVED) == 1
    assert await gateway.restore(RESERVED) == 0
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))

    async def book() -> None:
        await Booking(database).book(check_message(message(gateway.record)).records)

    async def says(*expected: str) -> None:
        async def holds() -> bool:
            return await spend_of(billing, budget) == expected

        await eventually(holds)

    await says("0.00", "0.007")
    if booked == "before it is settled":
        await book()
        await says("0.002", "0.007")
    for _ in range(2):
        assert await gateway.settle(COST) == 1
    if booked == "in time":
        await says("0.00", "0.002")
        await book()
    await says("0.002" if booked in ("in time", "before it is settled") else "0.00", "0.002")
    await gateway.expire()
    await says("0.002", "0.00")
    if booked == "late":
        await book()
    await says("0.002", "0.00")
    assert (await read_books(database))["hourly"][1] == COST
