"""The prober, on simulated replicas: what gateways and the API are told of backends, and who tells it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.backend_states import BackendState, BackendStates
from ias.contracts.ids import uuid7
from ias.kit.database import Database
from ias.kit.redis_documents import open_redis
from ias.registry.core.prober_lease import ProberLease
from ias.registry.settings import RegistrySettings
from ias.registry.store.backend_transitions import BackendTransition, insert_transitions
from tests.registry.conftest import SECRET_KEY, RunningRegistry, create_backend, create_model
from tests.registry.replicas import Replica

QUICK: dict[str, Any] = {
    "registry_prober": True,
    "registry_probe_interval_s": 0.2,
    "registry_scrape_interval_s": 0.2,
    "registry_probe_timeout_s": 1.0,
    "registry_prober_lease_s": 1.0,
    "registry_circuit_open_s": 0.5,
    "redis_timeout_s": 2.0,
}
DEADLINE_S = 30.0

StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url, 5)
    yield client
    await client.aclose()


@pytest.fixture
async def start_replica() -> AsyncIterator[StartReplica]:
    started: list[Replica] = []

    async def start(*options: str, **more: str) -> Replica:
        started.append(Replica(*options, **more))
        return await started[-1].start()

    yield start
    for replica in started:
        replica.kill()


@pytest.fixture
async def probing_registry(run_registry: RunningRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with run_registry(**QUICK) as client:
        yield client


async def read_states(redis: Redis) -> BackendStates:
    document = await redis.get(redis_keys.BACKEND_STATES)
    return (
        msgspec.json.decode(document, type=BackendStates)
        if document
        else BackendStates(version=0, written_at=0, states={})
    )


async def until(redis: Redis, backend_id: str, **wanted: Any) -> BackendState:
    """The backend's state, once it is as wanted."""
    state = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                state = (await read_states(redis)).states.get(backend_id)
                if state and all(getattr(state, name) == value for name, value in wanted.items()):
                    return state
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"wanted {wanted}, it is {state}") from None


async def add_backend(registry: httpx.AsyncClient, url: str, name: str = "tiny", **more: Any) -> str:
    model = await create_model(registry, name)
    backend = await create_backend(
        registry, model["id"], **{"url": url, "engine": "ias-sim", "upstream_model": "tiny"} | more
    )
    return str(backend["id"])


async def count_outcomes(redis: Redis, backend_id: str, **counts: int) -> None:
    """Tell what gateways would tell."""
    for kind, count in counts.items():
        await redis.hincrby(redis_keys.backend_outcomes(int(time.time()) // 10), f"{backend_id}:{kind}", count)  # type: ignore[misc]


async def test_a_replica_that_answers_and_has_the_model_is_ready_with_its_load(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica("--lora", "sql", "--lora", "law", "--metric-names", "old")
    backend_id = await add_backend(probing_registry, replica.url)
    state = await until(redis, backend_id, health="ready", running=0)
    assert (state.circuit, state.waiting, state.kv_cache_usage, state.ramps_until) == ("closed", 0, 0.0, None)
    assert set(state.adapters) == {"sql", "law"}
    shown = (await probing_registry.get(f"/registry/v1/backends/{backend_id}/health")).json()
    assert (shown["health"], shown["circuit"], shown["running"], shown["adapters"]) == (
        "ready",
        "closed",
        0,
        ["sql", "law"],
    )
    await replica.fail_with(failing_metrics=True)
    await until(redis, backend_id, health="ready", running=None)


async def test_many_backends_take_turns_when_few_may_be_asked_at_a_time(
    run_registry: RunningRegistry, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    async with run_registry(**QUICK, registry_probes_at_once_max=2) as registry:
        model = await create_model(registry)
        backend = {"url": replica.url, "engine": "ias-sim"}
        ids = [(await create_backend(registry, model["id"], **backend))["id"] for _ in range(10)]
        for backend_id in ids:
            await until(redis, backend_id, health="ready", running=0)


async def test_a_replica_that_dies_and_returns_is_unready_then_ramps(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    backend_id = await add_backend(probing_registry, replica.url)
    await until(redis, backend_id, health="ready")
    replica.kill()
    assert (await until(redis, backend_id, health="unready")).reason == "nothing accepts connections there"
    await replica.start()
    state = await until(redis, backend_id, health="ready")
    assert state.ramps_until is not None
    assert state.ramps_until > time.time()
    path = f"/registry/v1/backends/{backend_id}/health"
    while len(history := (await probing_registry.get(path)).json()["history"]) < 3:
        await asyncio.sleep(0.05)
    assert [one["health"] for one in history] == ["ready", "unready", "ready"]


async def test_a_replica_that_hangs_is_unready(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    backend_id = await add_backend(probing_registry, replica.url)
    await until(redis, backend_id, health="ready")
    replica.send(signal.SIGSTOP)
    state = await until(redis, backend_id, health="unready")
    assert "did not answer within" in state.reason
    replica.send(signal.SIGCONT)
    await until(redis, backend_id, health="ready")


async def test_a_replica_that_sleeps_is_cold_until_it_wakes(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    backend_id = await add_backend(probing_registry, replica.url)
    await replica.ask("POST", "/sleep?level=1")
    assert (await until(redis, backend_id, health="cold")).reason == "it sleeps"
    await replica.fail_with(failing_metrics=True)  # then it is asked
    await replica.ask("POST", "/wake_up")
    await until(redis, backend_id, health="ready", ramps_until=None)


async def test_what_is_wrong_with_a_backend_is_said(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica("--api-key", "sk-right")
    wrong = {
        "it refuses its credential (401)": {"credential": "sk-wrong"},
        "it does not serve 'huge'": {"credential": "sk-right", "upstream_model": "huge"},
    }
    for number, (reason, more) in enumerate(wrong.items()):
        backend_id = await add_backend(probing_registry, replica.url, f"m{number}", **more)
        assert (await until(redis, backend_id, health="unready")).reason == reason
    await replica.fail_with(flap_health_s=1000)
    backend_id = await add_backend(probing_registry, replica.url, "last", credential="sk-right")
    assert (await until(redis, backend_id, health="unready")).reason == "its /health answers 503"
    await probing_registry.patch(f"/registry/v1/backends/{backend_id}", json={"engine": "openai"})
    assert (await until(redis, backend_id, health="ready")).running is None, "no vLLM: asked for its models alone"


async def test_the_circuit_follows_what_gateways_saw(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    backend_id = await add_backend(probing_registry, replica.url)
    await until(redis, backend_id, health="ready")
    await count_outcomes(redis, backend_id, succeeded=3, failed=7)
    state = await until(redis, backend_id, circuit="open")
    assert "7 of 10 requests failed" in state.reason
    await until(redis, backend_id, circuit="half_open")
    await count_outcomes(redis, backend_id, failed=1)
    await until(redis, backend_id, circuit="open")
    await until(redis, backend_id, circuit="half_open")
    await count_outcomes(redis, backend_id, succeeded=3)
    state = await until(redis, backend_id, circuit="closed")
    assert state.ramps_until is not None
    assert state.health == "ready", "probes found nothing wrong all the while"


async def test_a_backend_that_the_policy_no_longer_allows_is_not_probed(
    run_registry: RunningRegistry, redis: Redis
) -> None:
    async with run_registry() as registry:
        backend_id = await add_backend(registry, "http://127.0.0.1:9/v1")
    async with run_registry(**QUICK, registry_allow_loopback=False) as registry:
        while True:
            shown = (await registry.get(f"/registry/v1/backends/{backend_id}/health")).json()
            if "no prober" not in shown["reason"] and shown["reason"] != "it was not probed yet":
                break
            await asyncio.sleep(0.05)
    assert shown["reason"] in {
        "it is not in the route table, or was not for long",
        "The URL leads to this machine itself, which the settings do not allow.",
    }


async def test_the_health_of_a_backend_is_unknown_while_nobody_probes(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    backend_id = await add_backend(registry, "http://127.0.0.1:9/v1")
    path = f"/registry/v1/backends/{backend_id}/health"
    assert (await registry.get(path)).json()["reason"] == "no prober has told anything yet"
    old = BackendStates(version=1, written_at=1.0, states={backend_id: BackendState(health="ready", since=1)})
    await redis.set(redis_keys.BACKEND_STATES, msgspec.json.encode(old))
    shown = (await registry.get(path)).json()
    assert (shown["health"], shown["reason"], shown["history"]) == ("unknown", "no prober is at work", [])
    assert (await registry.get(path.replace(backend_id, "01a2083b-46cc-7e64-9252-39e7186cf380"))).status_code == 404


async def test_what_is_killed_or_drained_is_watched_and_what_is_deleted_is_not(
    probing_registry: httpx.AsyncClient, redis: Redis, start_replica: StartReplica
) -> None:
    replica = await start_replica()
    backend_id = await add_backend(probing_registry, replica.url)
    for switch in ("disable", "drain"):
        await probing_registry.post(f"/registry/v1/backends/{backend_id}/{switch}")
    await until(redis, backend_id, health="ready")
    await probing_registry.delete(f"/registry/v1/backends/{backend_id}")
    while backend_id in (await read_states(redis)).states:
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_another_registry_probes_on_when_the_one_that_did_is_killed(
    run_registry: RunningRegistry,
    registry_database: str,
    redis_url: str,
    redis: Redis,
    start_replica: StartReplica,
) -> None:
    """kill -9: the lease runs out, the next one takes over with what was known, and is the only one."""
    replica = await start_replica()
    environment = os.environ | {
        "IAS_REGISTRY_DATABASE_URL": registry_database,
        "IAS_REDIS_URL": redis_url,
        "IAS_BUS_URL": redis_url,
        "IAS_SECRET_KEY": SECRET_KEY,
        "IAS_REGISTRY_ALLOW_LOOPBACK": "true",
        **{f"IAS_{name.upper()}": str(value) for name, value in QUICK.items()},
    }
    command = [sys.executable, "-c", "from ias.cli.main import main; main()", "serve", "registry", "--port", "0"]
    first = await asyncio.to_thread(subprocess.Popen, command, env=environment, stderr=subprocess.DEVNULL)
    try:
        async with run_registry() as registry:
            backend_id = await add_backend(registry, replica.url)
        since = (await until(redis, backend_id, health="ready")).since
        async with run_registry(**QUICK) as second:
            holder = await redis.get(redis_keys.PROBER_LEASE)
            await asyncio.sleep(1.5)
            assert await redis.get(redis_keys.PROBER_LEASE) == holder, "one that is alive keeps it"
            first.kill()
            while await redis.get(redis_keys.PROBER_LEASE) in (holder, None):
                await asyncio.sleep(0.02)
            before = await read_states(redis)
            assert before.states[backend_id].since == since, "no state was forgotten"
            replica.kill()
            await until(redis, backend_id, health="unready")
            assert (await read_states(redis)).version > before.version
            metrics = (await second.get("/metrics")).text
            assert "ias_registry_is_prober 1.0" in metrics
            assert 'ias_registry_backends{state="unready"} 1.0' in metrics
        assert await redis.get(redis_keys.PROBER_LEASE) is None, "one that stops leaves it at once"
    finally:
        first.kill()
        first.wait()


async def test_of_two_that_believe_to_hold_the_lease_one_is_heard(redis: Redis) -> None:
    one, other = ProberLease(redis, 60), ProberLease(redis, 60)
    assert await one.renew()
    assert not await other.renew()
    assert not await other.publish(b"{}")
    assert await redis.get(redis_keys.BACKEND_STATES) is None
    await other.release()
    assert await one.publish(b"{}"), "nobody releases what is another's"
    await one.release()
    assert await other.renew()
    assert not await one.publish(b"stale")


async def test_the_history_of_a_backend_is_bounded(registry: httpx.AsyncClient, registry_database: str) -> None:
    backend_id = await add_backend(registry, "http://127.0.0.1:9/v1")
    connection = await asyncpg.connect(registry_database)
    await connection.execute(
        "INSERT INTO backend_transitions (id, backend_id, at, health, circuit, reason)"
        " SELECT gen_random_uuid(), $1, now(), 'ready', 'closed', 'x' FROM generate_series(1, 250)",
        backend_id,
    )
    database = Database(
        registry_database,
        RegistrySettings.model_construct(database_pool_size=1, database_timeout_s=5.0),
        application_name="test",
    )
    newest = BackendTransition(
        id=UUID(int=2**128 - 1),
        backend_id=UUID(backend_id),
        at=datetime.now(UTC),
        health="cold",
        circuit="closed",
        reason="y",
    )
    stranger = replace(newest, id=uuid7(), backend_id=uuid7())
    async with database.transaction() as transaction:
        await insert_transitions(transaction, [newest, stranger])
    await database.close()
    assert await connection.fetchval("SELECT count(*) FROM backend_transitions") == 100
    await connection.close()
    assert (await registry.get(f"/registry/v1/backends/{backend_id}/health")).json()["history"][0]["health"] == "cold"
