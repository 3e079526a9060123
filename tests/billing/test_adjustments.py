"""Corrections and credits: entries of their own, that count in the ledger, the balances and the budgets."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from ias.billing.core.booking import Booking
from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.permissions import Role
from ias.contracts.spending import window_id
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.usage import PROJECT_ID, eventually, make_record, message, read_books
from tests.kit.token_issuer import TokenIssuer


async def book(database: Database, *records: UsageRecord) -> None:
    await Booking(database).book(check_message(message(*records)).records)


async def correct(billing: httpx.AsyncClient, org_id: str, request_id: str, cost_usd: str) -> httpx.Response:
    body = {"org_id": org_id, "request_id": request_id, "cost_usd": cost_usd, "reason": "The engine was wrong."}
    return await billing.post("/billing/v1/corrections", json=body)


async def credit(billing: httpx.AsyncClient, org_id: str, amount_usd: str, **more: Any) -> httpx.Response:
    body = {"org_id": org_id, "amount_usd": amount_usd, "reason": "Welcome.", **more}
    return await billing.post("/billing/v1/credits", json=body)


async def spent(billing: httpx.AsyncClient, budget: dict[str, Any]) -> str | None:
    return (await billing.get(f"/billing/v1/budgets/{budget['id']}")).json()["spent_usd"]


async def test_a_correction_is_an_entry_of_the_difference_and_the_original_stays(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    record = make_record(org_id)
    await book(database, record)
    answer = await correct(billing, org_id, record.request_id, "0.0005")
    assert answer.status_code == 201, answer.text
    entry = answer.json()
    assert (entry["kind"], entry["cost_usd"], entry["rating"], entry["input_tokens"]) == (
        "correction",
        "-0.0015",
        "adjusted",
        0,
    )
    assert (entry["project_id"], entry["request_id"], entry["reason"]) == (
        PROJECT_ID,
        record.request_id,
        "The engine was wrong.",
    )
    params = {"org_id": org_id}
    explained = (await billing.get(f"/billing/v1/requests/{record.request_id}", params=params)).json()
    assert [entry["cost_usd"] for entry in explained["entries"]] == ["0.002", "-0.0015"]
    assert explained["decisions"][1]["actor"], "who corrected it is on record"
    assert await read_books(database) == {"ledger": (2, 500_000), "hourly": (2, 500_000)}


@pytest.mark.parametrize("window", ["month", "rolling_24h"])
async def test_what_was_corrected_and_credited_counts_in_a_budget_from_its_first_answer_on(
    billing: httpx.AsyncClient, database: Database, org_id: str, window: str
) -> None:
    record = make_record(org_id)
    await book(database, record)
    assert (await correct(billing, org_id, record.request_id, "0.5")).status_code == 201
    assert (await credit(billing, org_id, "0.1")).status_code == 201
    budget = await create_budget(billing, org_id, window=window)
    assert budget["spent_usd"] == "0.40"
    assert await spent(billing, budget) == "0.40"


async def test_corrections_that_race_end_at_the_cost_that_was_last_said(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    record = make_record(org_id)
    await book(database, record)
    costs = [f"0.00{number}" for number in range(5, 9)]
    answers = await asyncio.gather(*(correct(billing, org_id, record.request_id, cost) for cost in costs))
    assert {answer.status_code for answer in answers} == {201}
    books = await read_books(database)
    assert books["ledger"] == books["hourly"]
    assert books["ledger"] in {(5, number * 1_000_000) for number in range(5, 9)}


async def test_what_costs_that_already_is_not_corrected_again(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    record = make_record(org_id)
    await book(database, record)
    assert (await correct(billing, org_id, record.request_id, "0.001")).status_code == 201
    again = await correct(billing, org_id, record.request_id, "0.001")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_correct")


async def test_a_request_that_is_not_in_the_org_s_ledger_cannot_be_corrected(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    record = make_record(str(uuid4()))
    await book(database, record)
    assert (await correct(billing, org_id, record.request_id, "1")).status_code == 404
    assert (await correct(billing, org_id, "req_unknown", "1")).status_code == 404


@pytest.mark.parametrize("amount", ["-1", "0", "1e3", "0.0000000001", ""])
async def test_what_is_no_amount_is_refused_by_its_field(
    billing: httpx.AsyncClient, database: Database, org_id: str, amount: str
) -> None:
    answer = await credit(billing, org_id, amount)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/amount_usd"
    assert (await read_books(database))["ledger"] == (0, 0)


async def test_a_credit_widens_the_budgets_of_its_scope_and_a_correction_narrows_them(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, redis: Redis, org_id: str
) -> None:
    async with run_billing(billing_heal_interval_s=600) as app, client_of(app, issuer.platform_admin()) as billing:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        record = make_record(org_id)
        await book(database, record)
        own = await create_budget(billing, org_id)
        total = await create_budget(billing, org_id, window="total")
        project = await create_budget(billing, org_id, scope={"kind": "project", "id": PROJECT_ID})
        other = await create_budget(billing, org_id, scope={"kind": "project", "id": str(uuid4())})
        every = (own, total, project, other)
        assert [await spent(billing, budget) for budget in every] == ["0.002", "0.002", "0.002", "0.00"]
        assert (await credit(billing, org_id, "1.5")).status_code == 201
        assert [await spent(billing, budget) for budget in every] == ["-1.498", "-1.498", "0.002", "0.00"]
        assert (await credit(billing, org_id, "0.5", project_id=PROJECT_ID)).status_code == 201
        assert (await correct(billing, org_id, record.request_id, "0.004")).status_code == 201
        assert [await spent(billing, budget) for budget in every] == ["-1.996", "-1.996", "-0.496", "0.00"]
        late = await create_budget(billing, org_id, window="day")
        assert await spent(billing, late) == "-1.996", "a budget made later knows them too"


async def test_counters_that_were_lost_come_back_with_the_adjustments(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, redis: Redis, org_id: str
) -> None:
    async with run_billing() as app, client_of(app, issuer.platform_admin()) as billing:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        await book(database, make_record(org_id))
        budget = await create_budget(billing, org_id)
        assert (await credit(billing, org_id, "1")).status_code == 201
        await redis.flushall()
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        assert await spent(billing, budget) == "-0.998"


async def test_an_adjustment_made_while_redis_was_away_reaches_the_counters_by_the_timer(
    app_with_timer: FastAPI, issuer: TokenIssuer, database: Database, redis: Redis, org_id: str
) -> None:
    async with client_of(app_with_timer, issuer.platform_admin()) as billing:
        budget = await create_budget(billing, org_id)
        await credit(billing, org_id, "1")
        window = window_id("month", datetime.now(UTC).timestamp())
        counter = redis_keys.budget_counter(org_id, budget["id"], window)
        await redis.hset(counter, mapping={"settled": 0, "adjusted": 0})  # as it was before the credit

        async def is_counted() -> bool:
            return await spent(billing, budget) == "-1.00"

        await eventually(is_counted)


@pytest.fixture
async def app_with_timer(run_billing: RunningBilling, redis: Redis) -> Any:
    async with run_billing() as app:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        yield app


async def test_only_the_platform_adjusts(run_billing: RunningBilling, issuer: TokenIssuer, org_id: str) -> None:
    async with run_billing() as app, client_of(app, issuer.member(org_id, Role.OWNER)) as owner:
        assert (await credit(owner, org_id, "1")).status_code == 403
        assert (await correct(owner, org_id, "req_1", "1")).status_code == 403
