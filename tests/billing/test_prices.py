"""Prices: effective-dated, immutable, pushed to gateways."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.permissions import Role
from ias.contracts.spending import PriceTable, SpendingPolicy
from tests.billing.conftest import RunningBilling, client_of, create_price
from tests.kit.token_issuer import TokenIssuer


async def read_table(redis: Redis) -> PriceTable:
    return msgspec.json.decode(await redis.get(redis_keys.PRICES) or b"", type=PriceTable)


async def test_a_price_is_in_force_for_gateways_as_soon_as_it_is_created(
    billing: httpx.AsyncClient, redis: Redis
) -> None:
    created = await create_price(billing, cached_input_usd_per_million="0.25")
    found = (await read_table(redis)).find("tiny", datetime.now(UTC).timestamp())
    assert found is not None
    assert (found.id, found.version) == (created["id"], 1)
    assert found.input_nano_usd_per_million == 1_000_000_000
    assert found.cached_input_nano_usd_per_million == 250_000_000
    assert created["output_usd_per_million"] == "2.00"


async def test_cached_input_costs_as_input_unless_said_otherwise(billing: httpx.AsyncClient) -> None:
    assert (await create_price(billing, input_usd_per_million="0.15"))["cached_input_usd_per_million"] == "0.15"


async def test_a_price_to_come_takes_effect_at_its_time_and_not_before(
    billing: httpx.AsyncClient, redis: Redis
) -> None:
    now = datetime.now(UTC)
    first = await create_price(billing)
    second = await create_price(billing, input_usd_per_million="3", effective_at=(now + timedelta(hours=1)).isoformat())
    assert (first["version"], second["version"]) == (1, 2)
    table = await read_table(redis)
    before, after = table.find("tiny", now.timestamp() + 3590), table.find("tiny", now.timestamp() + 3610)
    assert before is not None
    assert after is not None
    assert (before.id, after.id) == (first["id"], second["id"])


async def test_the_tables_version_only_grows(billing: httpx.AsyncClient, redis: Redis) -> None:
    versions = []
    for _ in range(3):
        await create_price(billing)
        versions.append((await read_table(redis)).version)
    assert versions == sorted(set(versions))


async def test_versions_are_counted_for_each_model(billing: httpx.AsyncClient) -> None:
    created = [await create_price(billing, model) for model in ("a", "b", "a")]
    assert [price["version"] for price in created] == [1, 1, 2]


async def test_a_wrong_field_is_named(billing: httpx.AsyncClient) -> None:
    wrong: list[tuple[str, Any]] = [
        ("input_usd_per_million", "-1"),
        ("input_usd_per_million", "1e3"),
        ("output_usd_per_million", "0.0000000001"),
        ("output_usd_per_million", "9999999999"),
        ("cached_input_usd_per_million", "free"),
        ("input_usd_per_million", 1),
        ("model", ""),
        ("effective_at", "2026-01-01T00:00:00"),
        ("surprise", "x"),
    ]
    for field, value in wrong:
        body = {"model": "tiny", "input_usd_per_million": "1", "output_usd_per_million": "2", field: value}
        answer = await billing.post("/billing/v1/prices", json=body)
        assert answer.status_code == 422, (field, value)
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


async def test_a_moment_out_of_all_calendars_is_the_nearest_that_there_is(billing: httpx.AsyncClient) -> None:
    edges = {"effective_at": "0001-01-01T00:00:00+23:59", "effective_until": "9999-12-31T23:59:59-23:59"}
    price = await create_price(billing, **edges)
    assert (price["effective_at"], price["effective_until"]) == ("1970-01-01T00:00:00Z", "9000-01-01T00:00:00Z")


async def test_the_list_pages_newest_first_and_filters_by_model(billing: httpx.AsyncClient) -> None:
    made = [(await create_price(billing))["id"] for _ in range(5)]
    await create_price(billing, "other")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"model": "tiny", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await billing.get("/billing/v1/prices", params=params)).json()
        seen += [price["id"] for price in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_a_cursor_of_another_list_is_refused(billing: httpx.AsyncClient) -> None:
    for _ in range(2):
        await create_price(billing)
    cursor = (await billing.get("/billing/v1/prices", params={"limit": 1})).json()["next_cursor"]
    answer = await billing.get("/billing/v1/prices", params={"cursor": cursor, "model": "tiny"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_only_a_platform_admin_sets_prices(run_billing: RunningBilling, issuer: TokenIssuer, org_id: str) -> None:
    body = {"model": "tiny", "input_usd_per_million": "1", "output_usd_per_million": "2"}
    async with run_billing() as app:
        async with client_of(app) as nobody:
            assert (await nobody.post("/billing/v1/prices", json=body)).status_code == 401
        async with client_of(app, issuer.member(org_id, Role.OWNER)) as owner:
            assert (await owner.post("/billing/v1/prices", json=body)).status_code == 403
            assert (await owner.get("/billing/v1/prices")).status_code == 200


async def test_an_orgs_own_price_reaches_gateways_in_its_policy_and_nobody_else(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    await create_price(billing)
    own = await create_price(billing, org_id=org_id, input_usd_per_million="0.5", request_usd="0.001")
    assert (own["version"], own["org_id"]) == (1, org_id)
    policy = msgspec.json.decode(await redis.get(redis_keys.spending_policy(org_id)) or b"", type=SpendingPolicy)
    [published] = policy.prices["tiny"]
    assert (published.id, published.request_nano_usd) == (own["id"], 1_000_000)
    assert [price.id for price in (await read_table(redis)).prices["tiny"]] != [own["id"]]
    assert own["id"] not in {price["id"] for price in (await billing.get("/billing/v1/prices")).json()["data"]}
    listed = (await billing.get("/billing/v1/prices", params={"org_id": org_id})).json()["data"]
    assert [price["id"] for price in listed] == [own["id"]]


async def test_an_orgs_prices_are_its_own_secret(
    run_billing: RunningBilling, issuer: TokenIssuer, billing: httpx.AsyncClient, org_id: str
) -> None:
    await create_price(billing, org_id=org_id)
    async with run_billing() as app:
        for org, status in ((org_id, 200), (str(uuid4()), 404)):
            async with client_of(app, issuer.member(org, Role.VIEWER)) as member:
                answer = await member.get("/billing/v1/prices", params={"org_id": org_id})
                assert answer.status_code == status
                everybodys = await member.get("/billing/v1/prices")
                assert everybodys.json()["data"] == []


async def test_a_price_that_ends_is_as_if_it_were_not_there(billing: httpx.AsyncClient, redis: Redis) -> None:
    now = datetime.now(UTC)
    created = await create_price(billing, effective_until=(now + timedelta(hours=1)).isoformat())
    table = await read_table(redis)
    assert table.find("tiny", now.timestamp() + 3590) is not None
    assert table.find("tiny", now.timestamp() + 3600) is None
    assert created["effective_until"] is not None
    wrong = {"model": "m", "input_usd_per_million": "1", "output_usd_per_million": "2"}
    answer = await billing.post("/billing/v1/prices", json={**wrong, "effective_until": "2020-01-01T00:00:00Z"})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/effective_until"]


async def test_a_catalogue_sets_what_differs_shows_it_first_and_is_all_or_nothing(
    billing: httpx.AsyncClient, org_id: str
) -> None:
    await create_price(billing)
    catalogue = [
        {"model": "tiny", "input_usd_per_million": "1", "output_usd_per_million": "2"},
        {"model": "big", "input_usd_per_million": "3", "output_usd_per_million": "4"},
        {"model": "big", "input_usd_per_million": "2", "output_usd_per_million": "4", "org_id": org_id},
    ]
    url = "/billing/v1/prices/imports"
    tried = (await billing.post(url, params={"dry_run": "true"}, json={"prices": catalogue})).json()
    assert [(change["before"], change["after"]["input_usd"]) for change in tried["changes"]] == [
        (None, "3.00"),
        (None, "2.00"),
    ]
    imported = (await billing.post(url, json={"prices": catalogue})).json()
    assert ([price["org_id"] for price in imported["created"]], imported["unchanged"]) == ([None, org_id], 1)
    again = (await billing.post(url, json={"prices": catalogue})).json()
    assert (again["created"], again["unchanged"]) == ([], 3)
    catalogue[0]["input_usd_per_million"], catalogue[1]["output_usd_per_million"] = "7", "9999999999"
    refused = await billing.post(url, json={"prices": catalogue})
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/prices/1/output_usd_per_million"]
    prices = (await billing.get("/billing/v1/prices", params={"model": "tiny"})).json()["data"]
    assert [price["input_usd_per_million"] for price in prices] == ["1.00"]


async def test_what_an_org_says_of_models_without_a_price_reaches_gateways(
    run_billing: RunningBilling, issuer: TokenIssuer, billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    url = f"/billing/v1/orgs/{org_id}/spending-settings"
    first = await billing.get(url)
    assert (first.json()["unpriced"], first.json()["time_zone"]) == (None, "UTC")
    changed = await billing.patch(url, json={"unpriced": "allow"}, headers={"If-Match": first.headers["etag"]})
    assert changed.json()["unpriced"] == "allow"
    stale = await billing.patch(url, json={"time_zone": "Europe/Berlin"}, headers={"If-Match": first.headers["etag"]})
    assert stale.status_code == 412
    policy = msgspec.json.decode(await redis.get(redis_keys.spending_policy(org_id)) or b"", type=SpendingPolicy)
    assert policy.unpriced == "allow"
    async with run_billing() as app, client_of(app, issuer.member(org_id, Role.OWNER)) as owner:
        assert (await owner.patch(url, json={"unpriced": "allow"})).status_code == 403
        assert (await owner.patch(url, json={"time_zone": "Europe/Berlin"})).json()["unpriced"] == "allow"
        assert (await owner.patch(url, json={"time_zone": "Mars/Olympus"})).status_code == 422
    assert (await billing.patch(url, json={"unpriced": None})).json()["unpriced"] is None
