"""LoRA adapters: objects of a backend, models of their own to clients."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.routes import Backend, RouteTable
from tests.gateway.platform import Pushed, run_gateway, until
from tests.gateway.raw_client import ask, chat
from tests.registry.conftest import RunningRegistry, create_backend, create_model
from tests.registry.replicas import Replica
from tests.registry.test_health import QUICK


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def routes_of(redis: Redis, model: str) -> tuple[Backend, ...]:
    return msgspec.json.decode(await redis.get(redis_keys.ROUTES), type=RouteTable).models[model].backends


async def create_adapter(registry: httpx.AsyncClient, backend_id: str, name: str, model_id: str) -> httpx.Response:
    body = {"name": name, "model_id": model_id}
    return await registry.post(f"/registry/v1/backends/{backend_id}/adapters", json=body)


async def test_an_adapter_is_a_route_of_its_model_to_its_backends_server(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    base, tuned = await create_model(registry, "base"), await create_model(registry, "tuned")
    backend = await create_backend(registry, base["id"], weight=7, credential="sk-x", concurrency_max=3)
    made = await create_adapter(registry, backend["id"], "sql-lora", tuned["id"])
    assert made.status_code == 201, made.text
    (of_base,), (of_tuned,) = await routes_of(redis, "base"), await routes_of(redis, "tuned")
    assert of_tuned == msgspec.structs.replace(of_base, id=made.json()["id"], upstream_model="sql-lora")
    await registry.post(f"/registry/v1/backends/{backend['id']}/drain")
    assert (await routes_of(redis, "tuned"))[0].draining
    path = f"/registry/v1/backends/{backend['id']}/adapters"
    (listed,) = (await registry.get(path)).json()["data"]
    assert (listed["name"], listed["health"]) == ("sql-lora", "unknown")
    assert (await registry.delete(f"/registry/v1/adapters/{listed['id']}")).status_code == 204
    assert await routes_of(redis, "tuned") == ()
    assert (await registry.get(path)).json()["data"] == []
    actions = [one["action"] for one in (await registry.get("/registry/v1/changes")).json()["data"]]
    assert {"adapter.create", "adapter.delete"} <= set(actions)


async def test_adapters_go_with_their_backend_and_with_their_model(registry: httpx.AsyncClient, redis: Redis) -> None:
    base, tuned, other = [await create_model(registry, name) for name in ("base", "tuned", "other")]
    one, two = [await create_backend(registry, base["id"]) for _ in range(2)]
    for backend in (one, two):
        assert (await create_adapter(registry, backend["id"], "a", tuned["id"])).status_code == 201
        assert (await create_adapter(registry, backend["id"], "b", other["id"])).status_code == 201
    await registry.delete(f"/registry/v1/backends/{one['id']}")
    assert len(await routes_of(redis, "tuned")) == 1
    await registry.delete(f"/registry/v1/models/{tuned['id']}")
    listed = (await registry.get(f"/registry/v1/backends/{two['id']}/adapters")).json()["data"]
    assert [adapter["name"] for adapter in listed] == ["b"]
    assert (await create_adapter(registry, two["id"], "a", other["id"])).status_code == 201, "the name is free again"


async def test_what_makes_no_sense_is_refused(registry: httpx.AsyncClient) -> None:
    base, tuned = await create_model(registry, "base"), await create_model(registry, "tuned")
    backend = await create_backend(registry, base["id"])
    assert (await create_adapter(registry, str(uuid4()), "a", tuned["id"])).status_code == 404
    for model_id in (str(uuid4()), base["id"]):
        refused = await create_adapter(registry, backend["id"], "a", model_id)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/model_id")
    assert (await create_adapter(registry, backend["id"], "base", tuned["id"])).status_code == 409
    assert (await create_adapter(registry, backend["id"], "a", tuned["id"])).status_code == 201
    assert (await create_adapter(registry, backend["id"], "a", tuned["id"])).status_code == 409
    assert (await registry.delete(f"/registry/v1/adapters/{uuid4()}")).status_code == 404
    renamed = await registry.patch(f"/registry/v1/backends/{backend['id']}", json={"upstream_model": "a"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "name_taken")


async def test_an_adapter_at_a_canary_is_a_canary_of_its_model(registry: httpx.AsyncClient, redis: Redis) -> None:
    base, tuned = await create_model(registry, "base"), await create_model(registry, "tuned")
    policy, models = f"/registry/v1/models/{tuned['id']}/route-policy", "/registry/v1/models"
    stable = await create_backend(registry, tuned["id"])
    plain, canary = [await create_backend(registry, base["id"], group=group) for group in ("stable", "canary")]
    await create_adapter(registry, plain["id"], "a", tuned["id"])
    assert (await registry.patch(policy, json={"canary_percent": 5})).status_code == 422
    adapter = (await create_adapter(registry, canary["id"], "a", tuned["id"])).json()["id"]
    assert (await registry.patch(policy, json={"canary_percent": 5})).status_code == 200
    groups = {one.id: one.group for one in await routes_of(redis, "tuned")}
    assert (groups[adapter], groups[stable["id"]]) == ("canary", "stable")
    backend = f"/registry/v1/backends/{canary['id']}"
    for refused in (
        await registry.delete(f"/registry/v1/adapters/{adapter}"),
        await registry.delete(backend),
        await registry.patch(backend, json={"group": "stable"}),
        await registry.delete(f"{models}/{base['id']}"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "last_canary"), refused.text
    assert len(await routes_of(redis, "tuned")) == 3
    assert (await registry.delete(f"{models}/{tuned['id']}")).status_code == 204
    assert (await registry.delete(f"{models}/{base['id']}")).status_code == 204


@pytest.mark.slow
async def test_an_adapter_is_probed_verified_and_served_through_the_gateway(
    run_registry: RunningRegistry, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    replica = await Replica("--lora", "sql-lora", model="base").start()
    try:
        async with run_registry(**QUICK) as registry:
            base, tuned = await create_model(registry, "base"), await create_model(registry, "tuned")
            backend = await create_backend(registry, base["id"], url=replica.url, engine="ias-sim")
            loaded = (await create_adapter(registry, backend["id"], "sql-lora", tuned["id"])).json()["id"]
            absent = (await create_adapter(registry, backend["id"], "absent", tuned["id"])).json()["id"]
            verified = [(await registry.post(f"/registry/v1/adapters/{one}/verify")).json() for one in (loaded, absent)]
            assert [one["ok"] for one in verified] == [True, False]
            assert "does not list the adapter" in verified[1]["detail"]
            path = f"/registry/v1/backends/{backend['id']}/adapters"
            async with asyncio.timeout(30):
                while True:
                    states = {one["id"]: one for one in (await registry.get(path)).json()["data"]}
                    if {one: states[one]["health"] for one in states} == {loaded: "ready", absent: "unready"}:
                        break
                    await asyncio.sleep(0.05)
            assert states[absent]["reason"] == "it does not serve 'absent'"
            pushed = Pushed(redis)
            await pushed.tenants()
            await pushed.api_key()
            await pushed.prices("tuned")
            await pushed.counters_ready()
            async with run_gateway(redis_url, tmp_path, pushed) as gateway:
                await gateway.until_ready()
                snapshots = gateway.worker.gateway.snapshots
                await until(lambda: snapshots.backend_states is not None and len(snapshots.backend_states.states) == 3)
                for _ in range(5):
                    answer = await ask(gateway.port, chat(model="tuned", max_tokens=2), key=pushed.key)
                    assert (answer.status, answer.headers["x-ias-backend"]) == (200, loaded), answer.body
                    assert answer.document["model"] == "tuned"
    finally:
        replica.kill()
