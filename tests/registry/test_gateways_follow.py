"""The registry, its prober, a gateway and simulated replicas together: what is written or found reaches the next request."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.gateway.platform import Pushed, RunningGateway, run_gateway, until
from tests.gateway.raw_client import ask, chat
from tests.registry.conftest import RunningRegistry, create_backend, create_model
from tests.registry.replicas import Replica
from tests.registry.test_health import QUICK, read_states


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
        async with run_registry(**QUICK) as registry, Redis.from_url(redis_url) as redis:
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
