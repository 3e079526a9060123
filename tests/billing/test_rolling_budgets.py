"""Budgets over the last 24 hours, 7 and 30 days: each part of such a window is counted, kept, rebuilt and compared by itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from ias.billing.core.counters import Counters
from ias.billing.store import budgets as budget_store
from ias.billing.store.counters import Counter, CounterStore
from ias.contracts import redis_keys
from ias.contracts.spending import Window, window_parts
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.gateway import Gateway
from tests.billing.test_adjustments import book, correct, credit, spent
from tests.billing.usage import eventually, id_at, make_record
from tests.kit.token_issuer import TokenIssuer

COST = 2_000_000
"""Of every record here, in nano-USD: 0.002 USD."""
ROLLING: list[Window] = ["rolling_24h", "rolling_7d", "rolling_30d"]


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


async def read_parts(redis: Redis, org_id: str, budget: dict[str, Any]) -> dict[str, int]:
    """What was spent by each part's counter, by the part's id; parts in which nothing was spent are left out."""
    parts = window_parts(budget["window"], datetime.now(UTC).timestamp())
    told = {
        part.id: await redis.hget(redis_keys.budget_counter(org_id, budget["id"], part.id), "settled") for part in parts
    }
    return {part_id: int(settled) for part_id, settled in told.items() if int(settled or 0)}


def part_at(budget: dict[str, Any], moment: datetime) -> str:
    return window_parts(budget["window"], moment.timestamp())[0].id


async def test_a_budget_begins_with_what_its_scope_spent_in_each_of_its_parts(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    for moment in (ago(), ago(hours=5), ago(hours=30), ago(days=5), ago(days=20), ago(days=35)):
        await book(database, make_record(org_id, id=id_at(moment)))
    for window, times in zip(ROLLING, (2, 4, 5), strict=True):
        budget = await create_budget(billing, org_id, window=window)
        assert (budget["spent_usd"], budget["window_ends_at"], budget["time_zone"]) == (
            f"0.0{times * 2:02}".rstrip("0"),
            None,
            "UTC",
        )
        parts = await read_parts(redis, org_id, budget)
        assert sum(parts.values()) == times * COST
        assert parts[part_at(budget, ago(hours=5))] >= COST


async def test_lost_counters_are_rebuilt_each_part_by_itself(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="rolling_7d")
    spent_at = [ago(), ago(days=1), ago(days=1), ago(days=6)]
    await book(database, *(make_record(org_id, id=id_at(moment)) for moment in spent_at))
    wanted: dict[str, int] = {}
    for moment in spent_at:
        part_id = part_at(budget, moment)
        wanted[part_id] = wanted.get(part_id, 0) + COST
    await redis.flushall()
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
    assert await read_parts(redis, org_id, budget) == wanted
    for part in window_parts("rolling_7d", datetime.now(UTC).timestamp()):
        assert await redis.ttl(redis_keys.budget_counter(org_id, budget["id"], part.id)) > 0


async def test_what_was_on_its_way_when_redis_was_lost_is_added_to_the_part_it_belongs_to(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="rolling_24h")
    await redis.flushall()
    await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
    earlier = ago(hours=3)
    await book(database, make_record(org_id, id=id_at(earlier)))

    async def is_added() -> bool:
        return await read_parts(redis, org_id, budget) == {part_at(budget, earlier): COST}

    await eventually(is_added)


async def test_a_reservation_whose_gateway_died_is_booked_in_the_part_that_holds_it(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="rolling_24h")
    gateway = Gateway(redis, org_id, budget, make_record(org_id))
    await gateway.reserve(COST)
    await gateway.expire()

    async def is_spent() -> bool:
        return await spent(billing, budget) == "0.002"

    await eventually(is_spent)
    assert list((await read_parts(redis, org_id, budget)).values()) == [COST]


async def test_corrections_and_credits_count_in_the_part_in_which_they_are_booked(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="rolling_24h")
    moment = ago(hours=10)
    old = make_record(org_id, id=id_at(moment))
    await book(database, old)
    assert (await correct(billing, org_id, old.request_id, "0.005")).status_code == 201
    assert (await credit(billing, org_id, "0.001")).status_code == 201

    async def is_counted() -> bool:
        parts = await read_parts(redis, org_id, budget)
        parts.pop(part_at(budget, moment), None)
        return sum(parts.values()) == 2_000_000

    await eventually(is_counted)


async def test_reconciliation_names_the_part_that_differs_and_repairs_it(
    run_billing: RunningBilling, issuer: TokenIssuer, redis: Redis, database: Database, org_id: str
) -> None:
    async with run_billing() as app, client_of(app, issuer.platform_admin()) as billing:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        app.state.reconciler._pause_s = 0.01
        moment = ago(hours=4)
        await book(database, make_record(org_id, id=id_at(moment)), make_record(org_id))
        budget = await create_budget(billing, org_id, window="rolling_24h")
        assert (await billing.post("/billing/v1/reconciliations", json={"hours": 1})).json()["differences"] == []
        key = redis_keys.budget_counter(org_id, budget["id"], part_at(budget, moment))
        await redis.hincrby(key, "settled", 5)
        body = {"hours": 1, "repair": True}
        (found,) = (await billing.post("/billing/v1/reconciliations", json=body)).json()["differences"]
        assert found["subject"] == f"budget {budget['id']} {part_at(budget, moment)}"
        assert int(await redis.hget(key, "settled") or 0) == COST


async def test_a_threshold_is_told_again_only_when_the_part_in_which_it_was_is_forgotten(
    billing: httpx.AsyncClient, redis: Redis, database: Database, org_id: str
) -> None:
    budget = await create_budget(billing, org_id, window="rolling_24h", limit_usd="0.002", alert_percents=[50])
    await book(database, make_record(org_id))

    async def list_alerts() -> list[dict[str, Any]]:
        return (await billing.get("/billing/v1/alerts", params={"org_id": org_id})).json()["data"]

    async def move_to(window_id: str) -> None:
        """As if it had been told then."""
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE alerts SET window_id = :id"), {"id": window_id})

    async def is_told_twice() -> bool:
        return len(await list_alerts()) == 2

    (alert,) = await eventually(list_alerts)
    parts = window_parts("rolling_24h", datetime.now(UTC).timestamp())
    assert alert["window_id"] in {part.id for part in parts[:2]}
    await move_to(parts[-2].id)
    await asyncio.sleep(0.3)
    assert len(await list_alerts()) == 1
    await move_to(part_at(budget, ago(hours=26)))
    await eventually(is_told_twice)


@pytest.mark.parametrize("window", ROLLING)
async def test_a_rolling_window_has_no_time_zone(billing: httpx.AsyncClient, org_id: str, window: str) -> None:
    scope = {"kind": "org", "id": org_id}
    body = {"org_id": org_id, "scope": scope, "window": window, "limit_usd": "1", "mode": "hard"}
    answer = await billing.post("/billing/v1/budgets", json={**body, "time_zone": "Europe/Berlin"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/time_zone")
    await billing.patch(f"/billing/v1/orgs/{org_id}/spending-settings", json={"time_zone": "Europe/Berlin"})
    assert (await billing.post("/billing/v1/budgets", json=body)).json()["time_zone"] == "UTC"


async def test_a_deleted_budget_leaves_no_part_behind(billing: httpx.AsyncClient, redis: Redis, org_id: str) -> None:
    budget = await create_budget(billing, org_id, window="rolling_30d")
    keys = await redis.keys(redis_keys.budget_counter(org_id, budget["id"], "*"))
    assert len(keys) == 31
    await billing.delete(f"/billing/v1/budgets/{budget['id']}")
    assert all([0 < await redis.ttl(key) <= 2 * 86_400 for key in keys])


class InterruptedStore(CounterStore):
    """Lets somebody else do their work before, or after, counters are read."""

    def __init__(self, redis: Redis, others: Any, *, first: bool) -> None:
        super().__init__(redis)
        self._others, self._first = others, first

    async def read(self, keys: Any) -> list[Counter]:
        if self._first:
            await self._others()
        found = await super().read(keys)
        if not self._first:
            await self._others()
        return found


@pytest.mark.parametrize("first", [True, False])
async def test_what_a_slower_replica_knew_does_not_undo_an_adjustment(
    run_billing: RunningBilling,
    issuer: TokenIssuer,
    redis: Redis,
    database: Database,
    org_id: str,
    *,
    first: bool,
) -> None:
    async with run_billing(billing_heal_interval_s=60.0) as app, client_of(app, issuer.platform_admin()) as billing:
        await eventually(lambda: redis.exists(redis_keys.COUNTERS_READY))
        created = await create_budget(billing, org_id)
        await credit(billing, org_id, "0.001")

        async def others() -> None:
            assert (await credit(billing, org_id, "0.005")).status_code == 201

        async with database.transaction() as connection:
            own = await budget_store.list_budgets(connection, UUID(org_id))
        await Counters(database, InterruptedStore(redis, others, first=first)).adjust(own, datetime.now(UTC))
        counter = (await redis.keys(redis_keys.budget_counter(org_id, created["id"], "*")))[0]
        assert int(await redis.hget(counter, "settled") or 0) == -6_000_000
