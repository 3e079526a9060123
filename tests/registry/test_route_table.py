"""What gateways see: the document in Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.routes import CREDENTIAL_PURPOSE, ModelRoute, RouteTable
from ias.kit.redis_documents import open_redis
from ias.kit.sealing import Sealer, decode_secret_key
from tests.registry.conftest import SECRET_KEY, RunningRegistry, create_backend, create_model
from tests.servers.redis_process import RedisProcess


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url, 5)
    yield client
    await client.aclose()


async def read_table(redis: Redis) -> RouteTable:
    return msgspec.json.decode(await redis.get(redis_keys.ROUTES), type=RouteTable)


async def read_healed_table(redis: Redis) -> RouteTable:
    """The table once it is there; pytest's own deadline ends the wait."""
    while not await redis.exists(redis_keys.ROUTES):
        await asyncio.sleep(0.02)
    return await read_table(redis)


async def test_a_write_is_in_redis_when_it_is_answered(registry: httpx.AsyncClient, redis: Redis) -> None:
    model = await create_model(registry, "org/tiny", output_tokens_max=64)
    backend = await create_backend(registry, model["id"], url="http://127.0.0.1:7000/v1/", weight=3, engine="vllm")
    table = await read_table(redis)
    assert table.version == (await registry.get("/registry/v1/route-table")).json()["version"]
    route = table.models["org/tiny"]
    assert (route.model_id, route.context_length, route.output_tokens_max) == (model["id"], 8192, 64)
    (sent,) = route.backends
    assert (sent.id, sent.url, sent.weight) == (backend["id"], "http://127.0.0.1:7000/v1", 3)
    assert (sent.upstream_model, sent.continuous_usage, sent.sealed_credential) == ("org/tiny", True, None)


async def test_the_engine_tells_which_extensions_a_backend_speaks(registry: httpx.AsyncClient, redis: Redis) -> None:
    for engine, like_vllm in (("vllm", True), ("ias-sim", True), ("openai", False)):
        model = await create_model(registry, engine)
        await create_backend(registry, model["id"], engine=engine)
        (sent,) = (await read_table(redis)).models[engine].backends
        assert (sent.continuous_usage, sent.vllm_extensions) == (like_vllm, like_vllm)


async def test_what_is_deleted_is_in_no_route_and_what_is_killed_or_drains_says_so(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    model = await create_model(registry)
    kept, killed, gone = [await create_backend(registry, model["id"]) for _ in range(3)]
    await registry.post(f"/registry/v1/backends/{kept['id']}/drain")
    await registry.post(f"/registry/v1/backends/{killed['id']}/disable")
    await registry.delete(f"/registry/v1/backends/{gone['id']}")
    backends = (await read_table(redis)).models["tiny"].backends
    seen = [(backend.id, backend.enabled, backend.draining) for backend in backends]
    assert seen == [(kept["id"], True, True), (killed["id"], False, False)]
    await registry.patch(f"/registry/v1/models/{model['id']}", json={"status": "disabled"})
    assert (await read_table(redis)).models == {}


async def test_a_route_is_there_under_every_name_with_all_that_gateways_go_by(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    org_id = "01a2083b-46cc-7e64-9252-39e7186cf380"
    await create_model(registry, "new")
    model = await create_model(
        registry,
        "old",
        aliases=["a", "b"],
        capabilities=["chat", "tools"],
        org_ids=[org_id],
        status="deprecated",
        sunset_at="2030-01-01T00:00:00Z",
        replacement="new",
    )
    await create_backend(registry, model["id"], tier=1, group="canary", concurrency_max=3)
    table = await read_table(redis)
    route = table.models["old"]
    assert {name for name in table.models if table.models[name] == route} == {"old", "a", "b"}
    assert (route.aliases, route.capabilities, route.org_ids) == (("a", "b"), ("chat", "tools"), (org_id,))
    assert (route.sunset_at, route.replacement) == (1893456000, "new")
    assert abs((route.deprecated_at or 0) - route.created) <= 1
    (sent,) = route.backends
    assert (sent.tier, sent.group, sent.concurrency_max) == (1, "canary", 3)


async def test_a_credential_travels_sealed_and_opens_with_the_platforms_secret(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    model = await create_model(registry)
    await create_backend(registry, model["id"], credential="sk-upstream-secret")
    raw = await redis.get(redis_keys.ROUTES)
    assert b"sk-upstream-secret" not in raw
    sealed = (await read_table(redis)).models["tiny"].backends[0].sealed_credential
    sealer = Sealer(decode_secret_key(SECRET_KEY), CREDENTIAL_PURPOSE)
    assert sealed is not None
    assert sealer.open(sealed) == "sk-upstream-secret"


async def test_concurrent_writers_never_push_an_older_table_over_a_newer_one(
    run_registry: RunningRegistry, redis: Redis
) -> None:
    """Two registries, as in production; a slow healing loop, so that the writes' own pushes are what is seen."""
    async with run_registry(registry_heal_interval_s=60) as one, run_registry(registry_heal_interval_s=60) as two:
        before = (await one.get("/registry/v1/route-table")).json()["version"]
        await asyncio.gather(*(create_model((one, two)[n % 2], f"m{n}") for n in range(30)))
        table = await read_table(redis)
    assert table.version == before + 30
    assert set(table.models) == {f"m{n}" for n in range(30)}


async def test_each_version_has_one_content(run_registry: RunningRegistry, redis: Redis) -> None:
    """While writers race, every table that a gateway could read holds exactly the models of its version."""
    seen: dict[int, frozenset[str]] = {}
    async with run_registry(registry_heal_interval_s=60) as one, run_registry(registry_heal_interval_s=60) as two:
        base = (await read_healed_table(redis)).version

        written = asyncio.Event()

        async def watch() -> None:
            while not written.is_set():
                table = await read_table(redis)
                assert seen.setdefault(table.version, frozenset(table.models)) == frozenset(table.models)
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(create_model((one, two)[n % 2], f"m{n}") for n in range(20)))
        written.set()
        await watcher
    assert all(len(models) == version - base for version, models in seen.items())
    assert list(seen) == sorted(seen)


async def test_the_table_comes_back_after_redis_lost_everything(registry: httpx.AsyncClient, redis: Redis) -> None:
    await create_model(registry)
    before = await read_table(redis)
    await redis.flushall()
    assert await read_healed_table(redis) == before


async def test_a_document_that_is_no_table_is_replaced(registry: httpx.AsyncClient, redis: Redis) -> None:
    await create_model(registry)
    before = await read_table(redis)
    await redis.set(redis_keys.ROUTES, "{not json")
    while await redis.get(redis_keys.ROUTES) == b"{not json":
        await asyncio.sleep(0.02)
    assert await read_table(redis) == before


async def test_a_database_restored_from_an_older_backup_overtakes_what_redis_holds(
    registry: httpx.AsyncClient, redis: Redis
) -> None:
    """Gateways never go back to a smaller version, so the restored truth must get a greater one."""
    await create_model(registry)
    newer = RouteTable(
        version=1000, models={"ghost": ModelRoute(model_id="x", name="ghost", created=0, context_length=1)}
    )
    await redis.set(redis_keys.ROUTES, msgspec.json.encode(newer))
    while (await read_table(redis)).version == 1000:
        await asyncio.sleep(0.02)
    table = await read_table(redis)
    assert (table.version, set(table.models)) == (1001, {"tiny"})
    await create_model(registry, "another")
    assert (await read_table(redis)).version == 1002


async def test_writes_succeed_while_redis_is_away_and_are_pushed_when_it_is_back(
    run_registry: RunningRegistry, private_redis: Callable[..., RedisProcess]
) -> None:
    process = private_redis()
    async with run_registry(redis_url=process.url) as registry:
        process.kill()
        await create_model(registry, "made-without-redis")
        assert (await registry.get("/ready")).json()["away"].keys() == {"redis"}
        assert (await registry.get("/registry/v1/route-table")).status_code == 503
        await asyncio.to_thread(process.start)
        client = open_redis(process.url, 5)
        assert set((await read_healed_table(client)).models) == {"made-without-redis"}
        await client.aclose()
        assert (await registry.get("/ready")).json() == {"status": "ready", "away": {}}


async def test_a_registry_starts_without_redis(
    run_registry: RunningRegistry, private_redis: Callable[..., RedisProcess]
) -> None:
    process = private_redis()
    process.kill()
    async with run_registry(redis_url=process.url) as registry:
        await create_model(registry)


async def test_a_backend_that_the_policy_no_longer_allows_leaves_the_table_at_the_next_start(
    run_registry: RunningRegistry, redis: Redis
) -> None:
    async with run_registry() as registry:
        model = await create_model(registry)
        await create_backend(registry, model["id"], url="http://127.0.0.1:7000")
        kept = await create_backend(registry, model["id"], url="http://10.0.0.7:8000")
    async with run_registry(registry_allow_loopback=False):
        while len((await read_table(redis)).models["tiny"].backends) == 2:
            await asyncio.sleep(0.02)
        assert [backend.id for backend in (await read_table(redis)).models["tiny"].backends] == [kept["id"]]


async def test_a_table_that_contradicts_itself_is_never_pushed(
    registry: httpx.AsyncClient, registry_database: str, redis: Redis
) -> None:
    await create_model(registry)
    good = await read_table(redis)
    connection = await asyncpg.connect(registry_database)
    await connection.execute("UPDATE models SET output_tokens_max = context_length + 1")
    await connection.execute("UPDATE route_table_version SET version = version + 1")
    await connection.close()
    answer = await registry.post("/registry/v1/models", json={"name": "more", "context_length": 1})
    assert answer.status_code == 201
    assert await read_table(redis) == good
