"""The ledger: append-only by the database's own word, and readable by those who may."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ias.billing.core.booking import Booking
from ias.billing.store import partitions
from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.permissions import Role
from ias.contracts.unserved import UnservedRequest
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from ias.kit.partitions import Month, partition_name
from tests.billing.conftest import RunningBilling, client_of, create_price
from tests.billing.usage import PROJECT_ID, id_at, make_record, message
from tests.kit.token_issuer import TokenIssuer


async def book(database: Database, *records: UsageRecord) -> None:
    await Booking(database).book(check_message(message(*records)).records)


async def entries(billing: httpx.AsyncClient, org_id: str, **params: Any) -> list[str]:
    answer = await billing.get("/billing/v1/ledger", params={"org_id": org_id, **params})
    assert answer.status_code == 200, answer.text
    return [entry["id"] for entry in answer.json()["data"]]


async def test_the_database_refuses_to_change_or_remove_entries(database: Database, org_id: str) -> None:
    long_ago = id_at(datetime(2001, 1, 1, tzinfo=UTC))
    await book(database, make_record(org_id), make_record(org_id, id=long_ago))
    statements = [
        "UPDATE {table} SET cost_nano_usd = 0",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
        "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (id) DO UPDATE SET cost_nano_usd = 0",
    ]
    for statement in statements:
        for table in ("ledger_entries", "ledger_entries_default", f"ledger_entries_{datetime.now(UTC):%Y_%m}"):
            with pytest.raises(DBAPIError, match="append-only"):
                async with database.transaction() as connection:
                    await connection.execute(text(statement.format(table=table)))
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM ledger_entries WHERE cost_nano_usd = 2000000")) == 2


async def test_new_partitions_are_append_only_too(database: Database, org_id: str) -> None:
    far = Month.of(datetime.now(UTC)).plus(7)
    async with database.transaction() as connection:
        assert await partitions.find_missing(connection, [far]) == [far]
        await partitions.create_partition(connection, far)
        assert await partitions.find_missing(connection, [far]) == []
    await book(database, make_record(org_id, id=id_at(far.start)))
    for verb in ("DELETE FROM", "TRUNCATE"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.transaction() as connection:
                await connection.execute(text(f"{verb} {partition_name('ledger_entries', far)}"))


async def test_entries_page_newest_first(billing: httpx.AsyncClient, database: Database, org_id: str) -> None:
    records = [make_record(org_id) for _ in range(7)]
    await book(database, *records, make_record(str(uuid4())))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"org_id": org_id, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await billing.get("/billing/v1/ledger", params=params)).json()
        seen += [entry["id"] for entry in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted((record.id for record in records), reverse=True)


async def test_filters_narrow_the_list(billing: httpx.AsyncClient, database: Database, org_id: str) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    plain, other, old = (
        make_record(org_id),
        make_record(org_id, model="other", project_id=str(uuid4())),
        make_record(org_id, id=id_at(yesterday)),
    )
    await book(database, plain, other, old)
    assert await entries(billing, org_id, model="other") == [other.id]
    assert set(await entries(billing, org_id, project_id=PROJECT_ID)) == {plain.id, old.id}
    assert await entries(billing, org_id, request_id=plain.request_id) == [plain.id]
    assert await entries(billing, org_id, end=(yesterday + timedelta(hours=1)).isoformat()) == [old.id]
    assert set(await entries(billing, org_id, start=(yesterday + timedelta(hours=1)).isoformat())) == {
        plain.id,
        other.id,
    }
    assert await entries(billing, org_id, kind="correction") == []


async def test_a_request_that_was_refused_is_explained_too(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    refused = UnservedRequest(
        request_id="req_1",
        ended_at="2026-11-23T12:00:00.000Z",
        project_id=str(uuid4()),
        api_key_id=str(uuid4()),
        user_id=None,
        service_account_id=str(uuid4()),
        endpoint="/v1/chat/completions",
        model="tiny",
        status=429,
        outcome="refused",
        code="insufficient_quota",
        denied_by="budget:b",
        reserved_nano_usd=2_000_000,
        remaining_nano_usd=-1,
        budgets=("b", "c"),
        rate_limits=(),
        attempts=(),
    )
    key = redis_keys.unserved(org_id)
    await redis.lpush(key, msgspec.json.encode(refused), b"{}")  # the newer one is of a release that is not known here

    async def ask(**changed: str) -> httpx.Response:
        return await billing.get("/billing/v1/requests/req_1", params={"org_id": org_id, **changed})

    told = (await ask()).json()
    assert (told["request_id"], told["entries"], told["prices"], told["decisions"]) == ("req_1", [], [], [])
    unserved = told["unserved"]
    assert (unserved["status"], unserved["code"], unserved["denied_by"]) == (429, "insufficient_quota", "budget:b")
    assert (unserved["reserved_usd"], unserved["remaining_usd"]) == ("0.002", "0.00")
    assert (unserved["model"], unserved["budgets"]) == ("tiny", ["b", "c"])
    assert (await ask(org_id=str(uuid4()))).status_code == 404


async def test_whether_a_request_was_refused_nobody_can_say_while_redis_is_away(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str
) -> None:
    async with run_billing(redis_url="redis://127.0.0.1:1/0") as app, client_of(app, issuer.platform_admin()) as client:
        answer = await client.get("/billing/v1/requests/req_1", params={"org_id": org_id})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_a_request_is_explained_by_its_price_and_decisions(
    billing: httpx.AsyncClient, database: Database, org_id: str
) -> None:
    price = await create_price(billing)
    decision = {"budgets": ["b"], "remaining_nano_usd": 5, "attempts": [{"backend": "x", "status": 503}]}
    record = make_record(org_id, price, decision=decision)
    await book(database, record)
    answer = (await billing.get(f"/billing/v1/requests/{record.request_id}", params={"org_id": org_id})).json()
    assert [entry["id"] for entry in answer["entries"]] == [record.id]
    assert [used["id"] for used in answer["prices"]] == [price["id"]]
    assert answer["decisions"] == [decision]
    missing = await billing.get("/billing/v1/requests/req_0", params={"org_id": org_id})
    elsewhere = await billing.get(f"/billing/v1/requests/{record.request_id}", params={"org_id": str(uuid4())})
    assert (missing.status_code, elsewhere.status_code) == (404, 404)


async def test_only_those_with_the_permission_in_the_org_read_its_ledger(
    run_billing: RunningBilling, database: Database, issuer: TokenIssuer, org_id: str
) -> None:
    record = make_record(org_id)
    await book(database, record)
    paths = ["/billing/v1/ledger", f"/billing/v1/requests/{record.request_id}"]
    callers: dict[int, Callable[[], dict[str, str]]] = {
        401: dict,
        403: lambda: issuer.member(org_id, Role.VIEWER),
        404: lambda: issuer.member(str(uuid4()), Role.OWNER),
        200: lambda: issuer.member(org_id, Role.FINANCE),
    }
    async with run_billing() as app, client_of(app) as client:
        for path in paths:
            for status, headers in callers.items():
                answer = await client.get(path, params={"org_id": org_id}, headers=headers())
                assert answer.status_code == status, path


async def test_a_wrong_question_is_refused(billing: httpx.AsyncClient, org_id: str) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"org_id": "acme"},
        {"org_id": org_id, "limit": "0"},
        {"org_id": org_id, "limit": "201"},
        {"org_id": org_id, "start": "soon"},
        {"org_id": org_id, "request_id": "nul\0"},
    ]
    for params in wrong:
        answer = await billing.get("/billing/v1/ledger", params=params)
        assert answer.status_code == 422, params
        assert answer.json()["errors"]
