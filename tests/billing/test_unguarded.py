"""What an org lets through while Redis is away is told to its gateways, and taken back."""

import httpx
import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.spending import SpendingPolicy
from tests.billing.usage import eventually


async def test_an_allowance_for_outages_reaches_the_gateways_and_can_be_taken_back(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    path = f"/billing/v1/orgs/{org_id}/spending-settings"

    async def published() -> int | None:
        document = await redis.get(redis_keys.spending_policy(org_id))
        return msgspec.json.decode(document, type=SpendingPolicy).unguarded_nano_usd if document else None

    async def is_taken_back() -> bool:
        return await published() is None

    assert (await billing.get(path)).json()["unguarded_usd"] is None
    changed = await billing.patch(path, json={"unguarded_usd": "0.25"})
    assert (changed.status_code, changed.json()["unguarded_usd"]) == (200, "0.25")
    assert await eventually(published) == 250_000_000
    assert (await billing.patch(path, json={"time_zone": "Europe/Berlin"})).json()["unguarded_usd"] == "0.25"
    assert (await billing.patch(path, json={"unguarded_usd": None})).json()["unguarded_usd"] is None
    await eventually(is_taken_back)


async def test_an_amount_that_is_none_is_refused(billing: httpx.AsyncClient, org_id: str) -> None:
    answer = await billing.patch(f"/billing/v1/orgs/{org_id}/spending-settings", json={"unguarded_usd": "much"})
    assert answer.status_code == 422
