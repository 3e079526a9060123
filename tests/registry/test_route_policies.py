"""Route policies over the API, and as gateways see them."""

from typing import Any
from uuid import uuid4

import httpx
import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.routes import RoutePolicy, RouteTable
from ias.kit.redis_documents import open_redis
from tests.registry.conftest import create_backend, create_model


def path_of(model: dict[str, Any]) -> str:
    return f"/registry/v1/models/{model['id']}/route-policy"


async def read_policy(redis_url: str, name: str = "tiny") -> RoutePolicy:
    redis: Redis = open_redis(redis_url, 5)
    document = await redis.get(redis_keys.ROUTES)
    await redis.aclose()
    return msgspec.json.decode(document, type=RouteTable).models[name].policy


async def test_a_new_model_has_the_policy_that_gateways_take_by_default(
    registry: httpx.AsyncClient, redis_url: str
) -> None:
    model = await create_model(registry)
    policy = (await registry.get(path_of(model))).json()
    assert policy == {
        "model_id": model["id"],
        "strategy": "prefix",
        "is_sticky": False,
        "canary_percent": 0,
        "attempts_max": 3,
        "first_byte_timeout_s": None,
        "total_timeout_s": None,
        "queue_timeout_s": None,
        "version": 1,
        "updated_at": model["created_at"],
    }
    assert await read_policy(redis_url) == RoutePolicy()


async def test_what_is_changed_is_in_redis_when_it_is_answered(registry: httpx.AsyncClient, redis_url: str) -> None:
    model = await create_model(registry)
    await create_backend(registry, model["id"], group="canary", tier=1, concurrency_max=4)
    sent = {
        "strategy": "least_tokens",
        "is_sticky": True,
        "canary_percent": 7,
        "attempts_max": 2,
        "first_byte_timeout_s": 1.5,
        "total_timeout_s": 60.0,
        "queue_timeout_s": 0.0,
    }
    answer = await registry.patch(path_of(model), json=sent)
    assert {name: answer.json()[name] for name in sent} == sent, answer.text
    assert await read_policy(redis_url) == RoutePolicy(**sent)
    emptied = await registry.patch(path_of(model), json={"total_timeout_s": None})
    assert (emptied.json()["total_timeout_s"], emptied.json()["version"]) == (None, 3)
    (change, *_) = (await registry.get("/registry/v1/changes", params={"target_id": model["id"]})).json()["data"]
    assert (change["action"], change["before"]["total_timeout_s"]) == ("route_policy.update", 60.0)


WRONG_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"strategy": "fastest"}, "/strategy"),
    ({"canary_percent": 101}, "/canary_percent"),
    ({"canary_percent": -1}, "/canary_percent"),
    ({"canary_percent": 0.5}, "/canary_percent"),
    ({"canary_percent": 5}, "/canary_percent"),  # nobody would get it
    ({"attempts_max": 0}, "/attempts_max"),
    ({"first_byte_timeout_s": 0}, "/first_byte_timeout_s"),
    ({"first_byte_timeout_s": 10, "total_timeout_s": 5}, "/first_byte_timeout_s"),
    ({"queue_timeout_s": -1}, "/queue_timeout_s"),
    ({"is_sticky": "yes"}, "/is_sticky"),
    ({"weights": {}}, "/weights"),
]


async def test_a_policy_that_could_not_be_followed_is_refused_and_the_field_named(
    registry: httpx.AsyncClient, redis_url: str
) -> None:
    model = await create_model(registry)
    for body, pointer in WRONG_BODIES:
        answer = await registry.patch(path_of(model), json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer], body
    assert (await registry.patch(path_of(model), json={"strategy": None})).status_code == 422
    assert await read_policy(redis_url) == RoutePolicy()


async def test_the_last_canary_stays_while_it_has_a_share(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    one, two = [await create_backend(registry, model["id"], group="canary") for _ in range(2)]
    assert (await registry.patch(path_of(model), json={"canary_percent": 5})).status_code == 200
    assert (await registry.delete(f"/registry/v1/backends/{one['id']}")).status_code == 204
    last = f"/registry/v1/backends/{two['id']}"
    for refused in (await registry.delete(last), await registry.patch(last, json={"group": "stable"})):
        assert (refused.status_code, refused.json()["code"]) == (409, "last_canary")
    assert (await registry.post(f"{last}/disable")).json()["status"] == "disabled", "the kill switch always works"
    assert (await registry.patch(path_of(model), json={"canary_percent": 0})).status_code == 200
    assert (await registry.delete(last)).status_code == 204


async def test_a_change_that_was_decided_on_an_older_version_is_refused(registry: httpx.AsyncClient) -> None:
    path = path_of(await create_model(registry))
    seen = (await registry.get(path)).headers["etag"]
    answers = [await registry.patch(path, json={"attempts_max": n}, headers={"If-Match": seen}) for n in (2, 4)]
    assert [answer.status_code for answer in answers] == [200, 412]
    tried = await registry.patch(f"{path}?dry_run=true", json={"attempts_max": 5})
    assert tried.json()["changes"][0]["after"]["attempts_max"] == 5
    assert (await registry.get(path)).json()["attempts_max"] == 2


async def test_a_policy_goes_with_its_model(registry: httpx.AsyncClient) -> None:
    model = await create_model(registry)
    await registry.delete(f"/registry/v1/models/{model['id']}")
    for path in (path_of(model), f"/registry/v1/models/{uuid4()}/route-policy"):
        assert (await registry.get(path)).status_code == 404
        assert (await registry.patch(path, json={"attempts_max": 2})).status_code == 404
