"""Prices: effective-dated, immutable, pushed to gateways."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.permissions import Role
from ias.contracts.spending import PriceTable
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
