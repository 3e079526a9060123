"""Rate limits: who may set them, what gateways hear of them."""

from typing import Any
from uuid import uuid4

import httpx
import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.permissions import Role
from ias.contracts.spending import SpendingPolicy
from tests.billing.conftest import RunningBilling, client_of, create_budget
from tests.billing.usage import eventually
from tests.kit.token_issuer import TokenIssuer
from tests.servers.redis_process import RedisProcess

URL = "/billing/v1/rate-limits"


async def read_policy(redis: Redis, org_id: str) -> SpendingPolicy | None:
    stored = await redis.get(redis_keys.spending_policy(org_id))
    return msgspec.json.decode(stored, type=SpendingPolicy) if stored else None


async def create_limit(billing: httpx.AsyncClient, org_id: str, **more: Any) -> dict[str, Any]:
    body = {
        "org_id": org_id,
        "scope": {"kind": "org", "id": org_id},
        "metric": "requests_per_minute",
        "limit": 600,
        **more,
    }
    answer = await billing.post(URL, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_gateways_hear_of_every_change_at_once_beside_the_budgets(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    heard: list[tuple[int, list[tuple[str, int]], int]] = []

    async def listen() -> None:
        policy = await read_policy(redis, org_id)
        assert policy is not None
        told = [(limit.metric, limit.limit) for limit in policy.rate_limits]
        heard.append((policy.version, told, len(policy.budgets)))

    limit = await create_limit(billing, org_id)
    await listen()
    await create_budget(billing, org_id)
    await listen()
    changed = await billing.patch(f"{URL}/{limit['id']}", json={"limit": 700})
    assert changed.json()["limit"] == 700
    await listen()
    assert (await billing.delete(f"{URL}/{limit['id']}")).status_code == 204
    await listen()
    assert [told for _, *told in heard] == [
        [[("requests_per_minute", 600)], 0],
        [[("requests_per_minute", 600)], 1],
        [[("requests_per_minute", 700)], 1],
        [[], 1],
    ]
    versions = [version for version, *_ in heard]
    assert versions == sorted(set(versions))
    assert (await billing.get(f"{URL}/{limit['id']}")).status_code == 404
    assert (await billing.patch(f"{URL}/{limit['id']}", json={"limit": 1})).status_code == 404


async def test_each_scope_and_metric_is_told_as_it_was_set(
    billing: httpx.AsyncClient, redis: Redis, org_id: str
) -> None:
    ids = {kind: str(uuid4()) for kind in ("project", "api_key", "user")} | {"org": org_id, "model": "org/llama 3:8b"}
    metrics = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "concurrency")
    made = [
        await create_limit(billing, org_id, scope={"kind": kind, "id": scope_id}, metric=metric, limit=i + 1)
        for i, metric in enumerate(metrics)
        for kind, scope_id in ids.items()
    ]
    policy = await read_policy(redis, org_id)
    assert policy is not None
    told = {(limit.id, limit.scope_kind, limit.scope_id, limit.metric, limit.limit) for limit in policy.rate_limits}
    assert told == {
        (each["id"], each["scope"]["kind"], each["scope"]["id"], each["metric"], each["limit"]) for each in made
    }


async def test_a_scope_has_one_limit_for_a_metric(billing: httpx.AsyncClient, org_id: str) -> None:
    limit = await create_limit(billing, org_id)
    body = {"org_id": org_id, "scope": limit["scope"], "metric": limit["metric"], "limit": 5}
    answer = await billing.post(URL, json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "rate_limit_exists")
    await create_limit(billing, org_id, metric="concurrency")
    await billing.delete(f"{URL}/{limit['id']}")
    await create_limit(billing, org_id, limit=5)


async def test_a_wrong_field_is_named(billing: httpx.AsyncClient, org_id: str) -> None:
    right: dict[str, Any] = {
        "org_id": org_id,
        "scope": {"kind": "org", "id": org_id},
        "metric": "requests_per_day",
        "limit": 1,
    }
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/limit", {"limit": 0}),
        ("/limit", {"limit": "many"}),
        ("/limit", {"limit": 1.5}),
        ("/limit", {"limit": 100_000_001}),
        ("/limit", {"limit": 10**30}),
        ("/metric", {"metric": "tokens_per_day"}),
        ("/scope/id", {"scope": {"kind": "api_key", "id": "default"}}),
        ("/scope/id", {"scope": {"kind": "org", "id": str(uuid4())}}),
        ("/scope/kind", {"scope": {"kind": "team", "id": "x"}}),
        ("/org_id", {"org_id": "acme"}),
        ("/surprise", {"surprise": 1}),
    ]
    for pointer, changed in wrong:
        answer = await billing.post(URL, json=right | changed)
        assert answer.status_code == 422, changed
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    limit = await create_limit(billing, org_id, metric="concurrency")
    assert (await billing.patch(f"{URL}/{limit['id']}", json={"limit": 200_000_000})).status_code == 422


async def test_pages_hold_every_limit_once(billing: httpx.AsyncClient, org_id: str) -> None:
    made = [(await create_limit(billing, org_id, scope={"kind": "model", "id": f"m{i}"}))["id"] for i in range(5)]
    listed: list[str] = []
    cursor: str | None = None
    while cursor is not None or not listed:
        query = {"org_id": org_id, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await billing.get(URL, params=query)).json()
        listed += [each["id"] for each in page["data"]]
        cursor = page["next_cursor"]
    assert listed == made[::-1]


async def test_roles_and_orgs_are_kept_apart(run_billing: RunningBilling, issuer: TokenIssuer, org_id: str) -> None:
    async with run_billing() as app:
        async with client_of(app, issuer.member(org_id, Role.ADMIN)) as client:
            path = f"{URL}/{(await create_limit(client, org_id))['id']}"
        people = {
            "nobody": None,
            "stranger": issuer.member(str(uuid4()), Role.OWNER),
            "viewer": issuer.member(org_id, Role.VIEWER),
            "finance": issuer.member(org_id, Role.FINANCE),
        }
        expected = {
            ("GET", path): (401, 404, 200, 200),
            ("GET", f"{URL}?org_id={org_id}"): (401, 404, 200, 200),
            ("PATCH", path): (401, 404, 403, 403),
            ("DELETE", path): (401, 404, 403, 403),
        }
        async with client_of(app) as client:
            for (method, url), statuses in expected.items():
                body = {"limit": 1} if method == "PATCH" else None
                answers = [await client.request(method, url, json=body, headers=headers) for headers in people.values()]
                assert tuple(answer.status_code for answer in answers) == statuses, (method, url)


async def test_a_lost_policy_is_written_again_also_where_there_is_no_budget(
    run_billing: RunningBilling, issuer: TokenIssuer, private_redis: Any, org_id: str
) -> None:
    process: RedisProcess = private_redis()
    async with (
        run_billing(redis_url=process.url) as app,
        client_of(app, issuer.platform_admin()) as client,
        Redis.from_url(process.url) as redis,
    ):
        await create_limit(client, org_id)
        await redis.flushall()

        async def is_back() -> bool:
            policy = await read_policy(redis, org_id)
            return policy is not None and [limit.limit for limit in policy.rate_limits] == [600]

        await eventually(is_back)
