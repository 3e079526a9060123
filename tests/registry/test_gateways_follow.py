"""The registry, its prober, a gateway and simulated replicas together: what is written or found reaches the next request."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.routes import ModelRoute
from tests.gateway.platform import Pushed, RunningGateway, run_gateway, until
from tests.gateway.raw_client import ask, chat
from tests.registry.conftest import RunningRegistry, create_backend, create_model
from tests.registry.replicas import Replica
from tests.registry.test_health import QUICK, read_states

Known = Callable[[dict[str, ModelRoute]], bool]
"""Whether a table shows a change."""


@dataclass
class World:
    """Model `tiny` at two replicas."""

    registry: httpx.AsyncClient
    redis: Redis
    gateway: RunningGateway
    model_id: str
    replicas: list[Replica]
    backend_ids: list[str]

    async def ask(self, times: int = 1, **fields: Any) -> Counter[str]:
        """Ask so often, one after the other; which backends answered. All must be served."""
        served: Counter[str] = Counter()
        for number in range(times):
            text = [{"role": "user", "content": f"question {number} {fields}"}]
            body = chat(model="tiny", messages=text, max_tokens=2, **fields)
            answer = await ask(self.gateway.port, body, key=self.gateway.pushed.key)
            assert answer.status == 200, answer.body
            served[answer.headers["x-ias-backend"]] += 1
        return served

    async def until_followed(self) -> None:
        """The gateway has the table of the last change."""
        version = (await self.registry.get("/registry/v1/route-table")).json()["version"]
        snapshots = self.gateway.worker.gateway.snapshots
        await until(lambda: snapshots.routes is not None and snapshots.routes.version >= version)

    async def until_state(self, backend_id: str, **wanted: str) -> None:
        """The prober has published such a state, while requests go on."""
        async with asyncio.timeout(60):
            while True:
                state = (await read_states(self.redis)).states.get(backend_id)
                if state and all(getattr(state, name) == value for name, value in wanted.items()):
                    return
                await self.ask(user=f"waiting for {wanted}")


@pytest.fixture
async def world(run_registry: RunningRegistry, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    replicas = await asyncio.gather(*(Replica().start() for _ in range(2)))
    try:
        async with run_registry(**QUICK, registry_ramp_s=6) as registry, Redis.from_url(redis_url) as redis:
            pushed = Pushed(redis)
            await pushed.tenants()
            await pushed.api_key()
            await pushed.prices("tiny")
            await pushed.counters_ready()
            model = await create_model(registry)
            backends = [await create_backend(registry, model["id"], url=r.url, engine="ias-sim") for r in replicas]
            await registry.patch(f"/registry/v1/models/{model['id']}/route-policy", json={"strategy": "weighted"})
            ids = [backend["id"] for backend in backends]
            async with run_gateway(redis_url, tmp_path, pushed) as gateway:
                await gateway.until_ready()
                world = World(registry, redis, gateway, model["id"], list(replicas), ids)
                await world.until_followed()
                for backend_id in ids:
                    await world.until_state(backend_id, health="ready")
                yield world
    finally:
        for replica in replicas:
            replica.kill()


@pytest.mark.slow
async def test_kill_switch_drain_weight_and_tier_reach_the_next_requests(world: World) -> None:
    one, two = world.backend_ids
    path = f"/registry/v1/backends/{one}"
    assert set(await world.ask(40)) == {one, two}
    for switch, back in (("disable", "enable"), ("drain", "resume")):
        await world.registry.post(f"{path}/{switch}")
        await world.until_followed()
        assert await world.ask(10) == {two: 10}, switch
        await world.registry.post(f"{path}/{back}")
        await world.until_followed()
    for field, value, usual in (("weight", 0, 1), ("tier", 1, 0)):
        await world.registry.patch(path, json={field: value})
        await world.until_followed()
        assert await world.ask(10) == {two: 10}, field
        await world.registry.patch(path, json={field: usual})
    await world.until_followed()
    assert set(await world.ask(40)) == {one, two}


@pytest.mark.slow
async def test_a_backend_whose_requests_fail_is_left_alone_by_all_and_tried_again(world: World) -> None:
    """Its probes find nothing wrong: only requests show it. None of them fails for the client."""
    bad, good = world.backend_ids
    await world.replicas[0].fail_with(error={"status": 503, "rate": 1})
    await world.until_state(bad, circuit="open", health="ready")
    await world.replicas[0].fail_with()
    await world.until_state(bad, circuit="closed")
    path = f"/registry/v1/backends/{bad}/health"
    history: list[dict[str, Any]] = []
    while not history or history[0]["circuit"] != "closed":
        history = (await world.registry.get(path)).json()["history"]
    assert [one["circuit"] for one in history][:3] == ["closed", "half_open", "open"]
    assert (await world.registry.get(path)).json()["ramps_until"] is not None
    assert good in await world.ask(5)


@pytest.mark.slow
async def test_a_replica_that_is_killed_is_found_out_and_one_that_returns_is_used(world: World) -> None:
    one, two = world.backend_ids
    world.replicas[0].kill()
    assert await world.ask(10) == {two: 10}, "the gateway finds out by itself"
    await world.until_state(one, health="unready")
    await world.replicas[0].start()
    await world.until_state(one, health="ready")
    async with asyncio.timeout(60):
        while one not in await world.ask(5):
            pass


@pytest.mark.slow
async def test_a_replica_that_returns_is_given_little_at_first(world: World) -> None:
    one, two = world.backend_ids

    async def share() -> float:
        seen = sum(await asyncio.gather(*(world.ask(user=str(number)) for number in range(60))), Counter[str]())
        return seen[one] / 60

    world.replicas[0].kill()
    await world.until_state(one, health="unready")
    await world.replicas[0].start()
    await world.until_state(one, health="ready")
    gateway = world.gateway.worker.gateway
    await until(lambda: one not in gateway.routers._desks[world.model_id].router.survey.reasons)
    assert await share() < 0.35
    assert set(await world.ask(5)) <= {one, two}
    async with asyncio.timeout(60):
        while (await read_states(world.redis)).states[one].ramps_until is not None:
            await asyncio.sleep(0.1)
    assert await share() > 0.25


@pytest.mark.slow
async def test_all_replicas_are_replaced_one_after_the_other_under_load_without_a_failed_request(world: World) -> None:
    desk = world.gateway.worker.gateway.routers._desks[world.model_id]
    served: Counter[str] = Counter()
    is_over = False

    async def load() -> None:
        while not is_over:
            served.update(await world.ask())

    clients = [asyncio.create_task(load()) for _ in range(8)]
    fresh = []
    for old, backend_id in zip(list(world.replicas), world.backend_ids, strict=True):
        replica = await Replica().start()
        world.replicas.append(replica)
        new = await create_backend(world.registry, world.model_id, url=replica.url, engine="ias-sim")
        fresh.append(new["id"])
        await world.until_state(new["id"], health="ready")
        await world.registry.post(f"/registry/v1/backends/{backend_id}/drain")
        await world.until_followed()
        await until(lambda name=backend_id: not desk.router.loads[name].requests)  # type: ignore[misc]
        await world.registry.delete(f"/registry/v1/backends/{backend_id}")
        old.send(signal.SIGTERM)
    await world.until_followed()
    served.clear()
    await until(lambda: served.total() >= 60, timeout_s=30)
    is_over = True
    await asyncio.gather(*clients)  # each of them found every one of its requests served
    assert set(served) == set(fresh)


async def test_every_change_is_known_to_every_gateway_within_a_second(
    run_registry: RunningRegistry, redis_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(run_registry())
        pushed = Pushed(await stack.enter_async_context(Redis.from_url(redis_url)))
        runs = [run_gateway(redis_url, tmp_path / str(number), pushed) for number in range(4)]
        gateways = [await stack.enter_async_context(run) for run in runs]
        model = await create_model(registry)
        backend = await create_backend(registry, model["id"])
        path, model_path = f"/registry/v1/backends/{backend['id']}", f"/registry/v1/models/{model['id']}"
        changes: tuple[tuple[str, str, dict[str, Any] | None, Known], ...] = (
            ("PATCH", path, {"weight": 7}, lambda models: models["tiny"].backends[0].weight == 7),
            ("POST", f"{path}/drain", None, lambda models: models["tiny"].backends[0].draining),
            ("POST", f"{path}/disable", None, lambda models: not models["tiny"].backends[0].enabled),
            (
                "PATCH",
                f"{model_path}/route-policy",
                {"strategy": "weighted"},
                lambda models: models["tiny"].policy.strategy == "weighted",
            ),
            ("PATCH", model_path, {"aliases": ["small"]}, lambda models: "small" in models),
            ("PATCH", model_path, {"status": "disabled"}, lambda models: not models),
            ("PATCH", model_path, {"status": "enabled"}, lambda models: "tiny" in models),
            ("DELETE", path, None, lambda models: not models["tiny"].backends),
        )

        def know(known: Known) -> bool:
            tables = [gateway.worker.gateway.snapshots.routes for gateway in gateways]
            return all(table is not None and known(table.models) for table in tables)

        await until(lambda: know(lambda models: "tiny" in models))
        for method, where, body, known in changes:
            async with asyncio.timeout(1):
                answer = await registry.request(method, where, json=body)
                while not know(known):
                    await asyncio.sleep(0.002)
            assert answer.is_success, answer.text


async def test_gateways_keep_the_last_routes_when_redis_lost_them_and_no_registry_is_there(
    run_registry: RunningRegistry, redis_url: str, tmp_path: Path
) -> None:
    async with Redis.from_url(redis_url) as redis:
        pushed = Pushed(redis)
        async with run_gateway(redis_url, tmp_path, pushed) as gateway:
            snapshots = gateway.worker.gateway.snapshots
            async with run_registry() as registry:
                model = await create_model(registry)
                await create_backend(registry, model["id"])
                await until(lambda: snapshots.routes is not None and bool(snapshots.routes.models["tiny"].backends))
            before = snapshots.routes
            await redis.set(redis_keys.COUNTERS_READY, "1")
            await until(lambda: snapshots.counters_ready)
            await redis.flushall()
            await until(lambda: not snapshots.counters_ready)  # it has heard
            assert snapshots.routes is before
            async with run_registry() as registry:
                while not await redis.exists(redis_keys.ROUTES):
                    await asyncio.sleep(0.02)
                await create_backend(registry, model["id"])
                await until(lambda: snapshots.routes is not None and len(snapshots.routes.models["tiny"].backends) == 2)


@pytest.mark.slow
async def test_replicas_that_all_sleep_are_woken_by_one_call_however_many_ask(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    pushed = world.gateway.pushed
    async with run_gateway(redis_url, tmp_path / "second", pushed) as second:
        await second.until_ready()
        for replica in world.replicas:
            await replica.ask("POST", "/sleep?level=1")
        gateways = [world.gateway, second]
        for gateway in gateways:
            await until(lambda g=gateway: _is_cold(g, world.model_id), timeout_s=30)  # type: ignore[misc]
        body = chat(model="tiny", max_tokens=2)
        asked = [ask(gateway.port, body, key=pushed.key) for gateway in gateways for _ in range(10)]
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
        assert sum(gateway.worker.gateway.routers.wakes for gateway in gateways) == 1


def _is_cold(gateway: RunningGateway, model_id: str) -> bool:
    desk = gateway.worker.gateway.routers._desks.get(model_id)
    return desk is not None and len(desk.router.survey.cold) == 2
