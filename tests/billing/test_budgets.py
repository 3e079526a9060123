"""Budgets: who may set them, what gateways hear of them, what they say was spent."""

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
from ias.contracts.permissions import Role
from ias.contracts.spending import SpendingPolicy, window_start
from ias.contracts.usage_messages import check_message
from ias.kit.database import Database
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.usage import eventually, id_at, make_record, message
from tests.kit.token_issuer import TokenIssuer
from tests.servers.redis_process import RedisProcess


async def read_policy(redis: Redis, org_id: str) -> SpendingPolicy | None:
    stored = await redis.get(redis_keys.spending_policy(org_id))
    return msgspec.json.decode(stored, type=SpendingPolicy) if stored else None


async def test_gateways_hear_of_every_change_at_once_in_versions_that_grow(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    heard: list[tuple[int, list[tuple[int, str]]]] = []

    async def listen() -> None:
        policy = await read_policy(redis, org_id)
        assert policy is not None
        heard.append((policy.version, [(budget.limit_nano_usd, budget.mode) for budget in policy.budgets]))

    budget = await create_budget(billing, org_id, limit_usd="0.50")
    await listen()
    path = f"/billing/v1/budgets/{budget['id']}"
    assert (await billing.patch(path, json={"limit_usd": "2"})).json()["limit_usd"] == "2.00"
    await listen()
    assert (await billing.patch(path, json={"mode": "soft"})).json()["mode"] == "soft"
    await listen()
    assert (await billing.delete(path)).status_code == 204
    await listen()
    assert [budgets for _, budgets in heard] == [
        [(500_000_000, "hard")],
        [(2_000_000_000, "hard")],
        [(2_000_000_000, "soft")],
        [],
    ]
    versions = [version for version, _ in heard]
    assert versions == sorted(set(versions))
    assert (await billing.get(path)).status_code == 404


async def test_a_budget_says_what_its_window_has_left(billing: httpx.AsyncClient, redis: Redis, org_id: str) -> None:
    budget = await create_budget(billing, org_id, limit_usd="1", window="total")
    counter = redis_keys.budget_counter(org_id, budget["id"], "total")
    await redis.hincrby(counter, "settled", 250_000_000)
    await redis.hincrby(counter, "reserved", 50_000_000)
    shown = (await billing.get(f"/billing/v1/budgets/{budget['id']}")).json()
    assert (shown["spent_usd"], shown["reserved_usd"], shown["remaining_usd"]) == ("0.25", "0.05", "0.70")
    assert shown["window_id"] == "total"
    [listed] = (await billing.get("/billing/v1/budgets", params={"org_id": org_id})).json()["data"]
    assert listed == shown


async def test_what_remains_of_a_scope_is_what_its_tightest_budget_has_left(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    project, key, other = str(uuid4()), str(uuid4()), str(uuid4())

    async def ask(**named: str) -> dict[str, Any]:
        answer = await billing.get("/billing/v1/remaining", params={"org_id": org_id, **named})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert await ask() == {"org_id": org_id, "remaining_usd": None, "budget_id": None, "budgets": []}
    of_org = await create_budget(billing, org_id, limit_usd="10", window="total")
    of_project = await create_budget(billing, org_id, limit_usd="9", scope={"kind": "project", "id": project})
    of_key = await create_budget(billing, org_id, limit_usd="100", scope={"kind": "api_key", "id": key})
    of_model = await create_budget(billing, org_id, limit_usd="8", mode="alert", scope={"kind": "model", "id": "m/1"})
    await create_budget(billing, org_id, limit_usd="1", scope={"kind": "project", "id": other})
    counter = redis_keys.budget_counter(org_id, of_key["id"], of_key["window_id"])
    for named, least, asked in (
        ({}, of_org, [of_org]),
        ({"project_id": project}, of_project, [of_project, of_org]),
        ({"project_id": project.upper(), "model": "m/1"}, of_project, [of_model, of_project, of_org]),
        ({"user_id": str(uuid4()), "api_key_id": key}, of_org, [of_key, of_org]),
    ):
        found = await ask(**named)
        assert (found["remaining_usd"], found["budget_id"]) == (least["remaining_usd"], least["id"])
        assert found["budgets"] == asked
    await redis.hincrby(counter, "settled", 99_500_000_000)
    found = await ask(project_id=project, api_key_id=key)
    assert (found["remaining_usd"], found["budget_id"]) == ("0.50", of_key["id"])


async def test_a_wrong_field_is_named(billing: httpx.AsyncClient, org_id: str) -> None:
    right: dict[str, Any] = {
        "org_id": org_id,
        "scope": {"kind": "org", "id": org_id},
        "window": "month",
        "limit_usd": "10",
        "mode": "hard",
    }
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/limit_usd", {"limit_usd": "ten"}),
        ("/limit_usd", {"limit_usd": "9999999999"}),
        ("/window", {"window": "decade"}),
        ("/mode", {"mode": "harder"}),
        ("/scope/id", {"scope": {"kind": "project", "id": "default"}}),
        ("/scope/id", {"scope": {"kind": "org", "id": str(uuid4())}}),
        ("/scope/kind", {"scope": {"kind": "team", "id": "x"}}),
        ("/org_id", {"org_id": "acme"}),
        ("/time_zone", {"time_zone": "localtime"}),
        ("/time_zone", {"time_zone": "../localtime"}),
        ("/surprise", {"surprise": 1}),
    ]
    for pointer, changed in wrong:
        answer = await billing.post("/billing/v1/budgets", json=right | changed)
        assert answer.status_code == 422, changed
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_a_model_budget_takes_a_public_name(billing: httpx.AsyncClient, org_id: str) -> None:
    budget = await create_budget(billing, org_id, scope={"kind": "model", "id": "org/llama 3.1:8b"})
    assert budget["scope"] == {"kind": "model", "id": "org/llama 3.1:8b"}


@pytest.fixture
async def app(run_billing: RunningBilling) -> Any:
    async with run_billing() as app:
        yield app


async def test_roles_and_orgs_are_kept_apart(app: FastAPI, issuer: TokenIssuer, org_id: str) -> None:
    finance, viewer = issuer.member(org_id, Role.FINANCE), issuer.member(org_id, Role.VIEWER)
    stranger = issuer.member(str(uuid4()), Role.OWNER)
    async with client_of(app, finance) as client:
        budget = await create_budget(client, org_id)
    path, listing = f"/billing/v1/budgets/{budget['id']}", f"/billing/v1/budgets?org_id={org_id}"
    expected = {
        ("GET", path): (401, 404, 200, 200),
        ("GET", listing): (401, 404, 200, 200),
        ("PATCH", path): (401, 404, 403, 200),
        ("DELETE", path): (401, 404, 403, 204),
    }
    async with client_of(app) as client:
        for (method, url), statuses in expected.items():
            body = {"limit_usd": "1"} if method == "PATCH" else None
            answers = [
                await client.request(method, url, json=body, headers=headers)
                for headers in ({}, stranger, viewer, finance)
            ]
            assert tuple(answer.status_code for answer in answers) == statuses, (method, url)


async def test_what_the_platform_set_the_platform_alone_changes(
    app: FastAPI, issuer: TokenIssuer, redis: Redis, org_id: str
) -> None:
    async with (
        client_of(app, issuer.platform_admin()) as platform,
        client_of(app, issuer.member(org_id, Role.OWNER)) as owner,
    ):
        ceiling, own = await create_budget(platform, org_id), await create_budget(owner, org_id)
        assert (ceiling["set_by_platform"], own["set_by_platform"]) == (True, False)
        path = f"/billing/v1/budgets/{ceiling['id']}"
        published = await read_policy(redis, org_id)
        for method, body in (("DELETE", None), ("PATCH", {"limit_usd": "99"}), ("PATCH", {"mode": "alert"})):
            refused = await owner.request(method, path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (403, "set_by_platform")
        assert await read_policy(redis, org_id) == published
        assert (await owner.get(path)).json() == ceiling

        assert (await platform.patch(path, json={"limit_usd": "99"})).json()["set_by_platform"] is True
        changed = await platform.patch(f"/billing/v1/budgets/{own['id']}", json={"limit_usd": "99"})
        assert changed.json()["set_by_platform"] is False
        assert (await owner.delete(f"/billing/v1/budgets/{own['id']}")).status_code == 204
        assert (await platform.delete(path)).status_code == 204


async def test_another_orgs_budget_is_as_absent_as_one_that_never_was(
    app: FastAPI, issuer: TokenIssuer, org_id: str
) -> None:
    async with client_of(app, issuer.member(org_id, Role.OWNER)) as client:
        budget = await create_budget(client, org_id)
    async with client_of(app, issuer.member(str(uuid4()), Role.OWNER)) as stranger:
        answers = [await stranger.get(f"/billing/v1/budgets/{budget_id}") for budget_id in (budget["id"], str(uuid4()))]
    bodies = [answer.json() | {"instance": ""} for answer in answers]
    assert bodies[0] == bodies[1]
    assert [answer.status_code for answer in answers] == [404, 404]


async def test_budgets_page_newest_first(billing: httpx.AsyncClient, org_id: str) -> None:
    made = [(await create_budget(billing, org_id))["id"] for _ in range(5)]
    await create_budget(billing, str(uuid4()), scope={"kind": "model", "id": "m"})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"org_id": org_id, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await billing.get("/billing/v1/budgets", params=params)).json()
        seen += [budget["id"] for budget in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_a_budget_made_while_redis_is_away_reaches_gateways_when_it_is_back(
    run_billing: RunningBilling, issuer: TokenIssuer, org_id: str, private_redis: Any
) -> None:
    process: RedisProcess = private_redis()
    async with (
        run_billing(redis_url=process.url) as app,
        client_of(app, issuer.platform_admin()) as billing,
        Redis.from_url(process.url) as redis,
    ):
        process.kill()
        budget = await create_budget(billing, org_id)
        assert (budget["spent_usd"], budget["remaining_usd"]) == (None, None)
        assert (await billing.get("/ready")).json()["away"] == {"redis": "ConnectionError"}
        process.start()

        async def heard() -> bool:
            try:
                policy = await read_policy(redis, org_id)
            except OSError:
                return False
            return policy is not None and [known.id for known in policy.budgets] == [budget["id"]]

        await eventually(heard)
        assert (await billing.get("/ready")).status_code == 200


async def test_a_day_begins_at_the_zones_midnight_also_in_the_middle_of_an_hour(
    billing: httpx.AsyncClient, database: Database, redis: Redis, org_id: str
) -> None:
    now = datetime.now(UTC)
    midnight = window_start("day", now.timestamp(), "Asia/Kolkata")
    assert midnight is not None
    moments = [midnight + timedelta(seconds=seconds) for seconds in (-1, 0, 1)]
    records = [make_record(org_id, id=id_at(min(moment, now))) for moment in moments]
    await Booking(database).book(check_message(message(*records)).records)
    settings = f"/billing/v1/orgs/{org_id}/spending-settings"
    assert (await billing.patch(settings, json={"time_zone": "Asia/Kolkata"})).status_code == 200
    budget = await create_budget(billing, org_id, window="day")
    assert (budget["time_zone"], budget["spent_usd"]) == ("Asia/Kolkata", "0.004")
    assert datetime.fromisoformat(budget["window_ends_at"]) == midnight + timedelta(days=1)
    policy = await read_policy(redis, org_id)
    assert policy is not None
    assert policy.budgets[0].time_zone == "Asia/Kolkata"
    refused = await billing.post(
        "/billing/v1/budgets",
        json={
            "org_id": org_id,
            "scope": {"kind": "org", "id": org_id},
            "window": "day",
            "limit_usd": "1",
            "mode": "hard",
            "time_zone": "Mars/Olympus",
        },
    )
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/time_zone"]


async def test_a_scope_has_a_bounded_number_of_budgets_and_of_counters_that_a_request_asks(
    billing: httpx.AsyncClient, org_id: str
) -> None:
    async def ask(kind: str, scope_id: str, window: str) -> httpx.Response:
        body = {"org_id": org_id, "scope": {"kind": kind, "id": scope_id}, "window": window}
        return await billing.post("/billing/v1/budgets", json={**body, "limit_usd": "1", "mode": "hard"})

    for window in ("rolling_24h", "rolling_30d", "rolling_30d"):
        assert (await ask("org", org_id, window)).status_code == 201
    refused = await ask("org", org_id, "rolling_7d")
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_budgets")
    assert "3 rolling" in refused.json()["detail"]

    statuses = [(await ask("org", org_id, "day")).status_code for _ in range(19)]
    assert (statuses.count(201), statuses.count(409)) == (17, 2)
    assert (await ask("project", str(uuid4()), "rolling_7d")).status_code == 201, "another scope has its own"
