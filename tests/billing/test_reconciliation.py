"""All books are held against each other: what differs is named, what is only on its way is not, counters can be repaired."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from ias.analytics.core.counting import Counting
from ias.analytics.wiring import assemble as assemble_analytics
from ias.billing.core.analytics_client import AnalyticsClient
from ias.billing.core.booking import Booking
from ias.billing.core.counters import Counters
from ias.billing.core.engine_check import EngineCheck
from ias.billing.core.reconciliation import Reconciler
from ias.billing.core.registry_client import RegistryClient
from ias.billing.store.counters import CounterStore
from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.spending import window_start
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.analytics.conftest import settings_for as analytics_settings
from tests.billing.conftest import RunningBilling, client_of, create_budget, create_price
from tests.billing.gateway import Gateway
from tests.billing.usage import eventually, id_at, make_record, message
from tests.kit.token_issuer import SignedTokens, TokenIssuer

COST = 2_000_000


class Books:
    """Billing, analytics and Redis, and what a gateway does to each of them."""

    def __init__(self, *, billing: httpx.AsyncClient, database: Database, analytics: Database, redis: Redis) -> None:
        self.billing = billing
        self.database = database
        self.redis = redis
        self._counting = Counting(analytics)
        self._booking = Booking(database)
        self.reconciler: Reconciler

    async def book(self, *records: UsageRecord) -> None:
        await self._booking.book(check_message(message(*records)).records)

    async def count(self, *records: UsageRecord) -> None:
        await self._counting.count(check_message(message(*records)).records)

    async def settle(self, org_id: str, budget: dict[str, Any], record: UsageRecord) -> None:
        gateway = Gateway(self.redis, org_id, budget, record)
        await gateway.reserve(COST)
        await gateway.settle(record.cost_nano_usd)

    async def differences(self, *, repair: bool = False) -> list[tuple[str, dict[str, int], dict[str, int], list[str]]]:
        run = await self.reconciler.run(hours=2, repair=repair)
        assert [one for one in run.skipped if not one.startswith("engines: ")] == []  # no registry runs here
        return [(d["check"], d["expected"], d["found"], d["missing"] + d["unknown"]) for d in run.differences]


@pytest.fixture
async def books(
    run_billing: RunningBilling,
    make_migrated_database: Callable[[str], str],
    issuer: TokenIssuer,
    database: Database,
    redis: Redis,
) -> AsyncIterator[Books]:
    dsn = make_migrated_database("analytics")
    settings = analytics_settings(dsn)
    app = assemble_analytics(settings, fetch_jwks=issuer.fetch_jwks)
    async with AsyncExitStack() as stack:
        billing_app = await stack.enter_async_context(run_billing())
        await stack.enter_async_context(app.router.lifespan_context(app))
        billing = await stack.enter_async_context(client_of(billing_app, issuer.platform_admin()))
        http = await stack.enter_async_context(client_of(app))
        analytics = Database(dsn, settings, application_name="test")
        stack.push_async_callback(analytics.close)
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        books = Books(billing=billing, database=database, analytics=analytics, redis=redis)
        client = AnalyticsClient(http, SignedTokens(issuer, "billing"), "http://analytics")
        counters = Counters(database, CounterStore(redis))
        books.reconciler = Reconciler(database, counters, client, pause_s=0.05, uncertainty=timedelta(0))
        yield books


async def served(books: Books, org_id: str, *, requests: int = 3) -> tuple[dict[str, Any], list[UsageRecord]]:
    """Some requests under a budget, in every book."""
    price = await create_price(books.billing)
    budget = await create_budget(books.billing, org_id, window="total")
    records = [make_record(org_id, price, decision={"budgets": [budget["id"]]}) for _ in range(requests)]
    for record in records:
        await books.settle(org_id, budget, record)
    await books.book(*records)
    await books.count(*records)
    return budget, records


async def test_books_that_are_one_have_no_differences(books: Books, org_id: str) -> None:
    await served(books, org_id)
    assert await books.differences() == []


async def test_requests_that_only_one_book_has_are_named(books: Books, org_id: str) -> None:
    budget, _ = await served(books, org_id)
    decision = {"budgets": [budget["id"]]}
    booked, counted = make_record(org_id, decision=decision), make_record(org_id, input_tokens=1001, decision=decision)
    await books.settle(org_id, budget, booked)
    await books.book(booked)
    await books.count(counted)
    [(check, expected, found, named)] = await books.differences()
    assert (check, sorted(named)) == ("usage_records", sorted([booked.request_id, counted.request_id]))
    assert (expected["input_tokens"], found["input_tokens"]) == (4000, 4001)


async def test_a_balance_that_is_not_the_ledgers_is_found(books: Books, org_id: str) -> None:
    await served(books, org_id)
    async with books.database.transaction() as connection:
        await connection.execute(text("UPDATE spend_hourly SET cost_nano_usd = cost_nano_usd - 1"))
    found = {check: (expected, found) for check, expected, found, _ in await books.differences()}
    expected = {"entries": 3, "cost_nano_usd": 3 * COST}
    assert found["balances"] == (expected, expected | {"cost_nano_usd": 3 * COST - 1})


async def test_a_counter_that_is_not_the_ledgers_is_found_and_repaired_when_that_is_asked_for(
    books: Books, org_id: str
) -> None:
    budget, _ = await served(books, org_id)
    key = redis_keys.budget_counter(org_id, budget["id"], "total")
    await books.redis.hincrby(key, "settled", -COST - 5)  # type: ignore[misc]
    expected = [("counters", {"spent_nano_usd": 3 * COST}, {"spent_nano_usd": 2 * COST - 5}, [])]
    assert await books.differences() == expected
    assert await books.differences(repair=True) == expected
    assert await books.redis.hget(key, "settled") == b"%d" % (3 * COST)  # type: ignore[misc]
    assert await books.differences() == []


async def test_what_is_on_its_way_is_no_difference(books: Books, org_id: str) -> None:
    budget, _ = await served(books, org_id)
    late = make_record(org_id, decision={"budgets": [budget["id"]]})
    await books.settle(org_id, budget, late)

    async def arrive() -> None:
        await asyncio.sleep(0.1)
        await books.book(late)
        await asyncio.sleep(0.1)
        await books.count(late)

    books.reconciler._pause_s = 0.3
    differences, _ = await asyncio.gather(books.differences(), arrive())
    assert differences == []


async def test_what_cannot_be_compared_is_said(books: Books, org_id: str, issuer: TokenIssuer) -> None:
    await served(books, org_id)
    async with httpx.AsyncClient(timeout=1, trust_env=False) as http:
        tokens = SignedTokens(issuer, "billing")
        books.reconciler._analytics = AnalyticsClient(http, tokens, "http://127.0.0.1:1")
        registry = RegistryClient(http, tokens, "http://127.0.0.1:1")
        books.reconciler._engines = EngineCheck(books.database, registry, tolerance=0, uncertainty=timedelta(0))
        run = await books.reconciler.run(hours=2, repair=False)
    assert run.differences == []
    assert [one.partition(":")[0] for one in run.skipped] == ["usage_records", "engines"]


async def test_an_admin_reconciles_and_finds_earlier_runs(books: Books, org_id: str) -> None:
    budget, _ = await served(books, org_id)
    key = redis_keys.budget_counter(org_id, budget["id"], "total")
    await books.redis.hset(key, "settled", 10**12)  # type: ignore[misc]
    tried = await books.billing.post("/billing/v1/reconciliations", json={"repair": True}, params={"dry_run": "true"})
    assert tried.json() == {"dry_run": True, "changes": []}
    answer = await books.billing.post("/billing/v1/reconciliations", json={"repair": True})
    assert answer.status_code == 201, answer.text
    [difference] = answer.json()["differences"]
    assert (difference["org_id"], difference["found"], difference["repaired"]) == (
        org_id,
        {"spent_nano_usd": 10**12},
        True,
    )
    runs = (await books.billing.get("/billing/v1/reconciliations")).json()["data"]
    assert [run["id"] for run in runs] == [answer.json()["id"]]
    assert UUID(runs[0]["id"]).version == 7


async def test_a_window_that_begins_in_the_middle_of_an_hour_is_compared_from_there(books: Books, org_id: str) -> None:
    now = datetime.now(UTC)
    for zone in ("Asia/Kolkata", "Asia/Kathmandu", "UTC"):
        midnight = window_start("day", now.timestamp(), zone)
        assert midnight is not None
        moments = [midnight + timedelta(seconds=seconds) for seconds in (-1, 1)]
        await books.book(*(make_record(org_id, id=id_at(min(moment, now))) for moment in moments))
    for zone in ("Asia/Kolkata", "Asia/Kathmandu", "UTC"):
        await create_budget(books.billing, org_id, window="day", time_zone=zone)
    assert [told for told in await books.differences() if told[0] == "counters"] == []


async def test_the_timer_compares_by_itself_and_its_metric_tells(
    run_billing: RunningBilling, issuer: TokenIssuer, database: Database, org_id: str
) -> None:
    await Booking(database).book(check_message(message(make_record(org_id))).records)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE spend_hourly SET entries = entries + 1"))
    async with run_billing(billing_reconcile_interval_s=0.2) as app, client_of(app, issuer.platform_admin()) as billing:

        async def has_told() -> bool:
            metrics = (await billing.get("/metrics")).text
            return 'ias_billing_reconciliation_differences{check="balances"} 1.0' in metrics

        await eventually(has_told)
        run = (await billing.get("/billing/v1/reconciliations")).json()["data"][0]
    assert [(one["check"], one["org_id"]) for one in run["differences"]] == [("balances", org_id)]
