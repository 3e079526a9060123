"""What engines count is read off their metrics, and kept so that restarts and other probers lose as little as can be."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from ias.kit.database import Database
from ias.kit.settings import ServiceSettings
from ias.registry.core.engine_tokens import EngineTokens, EngineTokenSums, TokenReadings, read_engine_tokens
from tests.registry.conftest import SECRET_KEY, RunningRegistry, create_backend, create_model
from tests.registry.replicas import Replica

LABELS = '{engine="0",model_name="m"}'
BACKEND = str(uuid4())


def test_the_counters_of_all_engines_behind_a_server_are_added_up() -> None:
    text = "".join(
        f'vllm:prompt_tokens_total{{engine="{n}"}} {n + 1}e6\nvllm:generation_tokens_total{{engine="{n}"}} {n}.0\n'
        f'vllm:prompt_tokens_created{{engine="{n}"}} 1.7e9\nvllm:generation_tokens_by_source_total{{engine="{n}"}} 900\n'
        for n in range(3)
    )
    assert read_engine_tokens(text) == EngineTokens(6_000_000, 3)


@pytest.mark.parametrize("text", ["", f"vllm:prompt_tokens_total{LABELS} 1\n", f"vllm:generation_tokens{LABELS} 1\n"])
def test_an_engine_that_does_not_tell_both_tells_nothing(text: str) -> None:
    assert read_engine_tokens(text) is None


def kept(readings: TokenReadings) -> list[tuple[float, int, int]]:
    return [(one.at.timestamp(), one.prompt_tokens, one.generation_tokens) for one in readings.waiting]


def test_a_reading_a_minute_is_kept_and_those_around_a_restart() -> None:
    readings = TokenReadings()
    for now, prompt in ((0, 10), (5, 20), (59, 30), (61, 40), (70, 50), (75, 60), (80, 7), (85, 9)):
        readings.take(BACKEND, EngineTokens(prompt, prompt), now)
    assert kept(readings) == [(0, 10, 10), (61, 40, 40), (75, 60, 60), (80, 7, 7)]
    readings.forget(BACKEND)
    assert kept(readings)[-1] == (85, 9, 9)


async def test_what_a_replica_served_is_what_its_backend_is_said_to_have_counted(
    run_registry: RunningRegistry, registry_database: str, redis_url: str
) -> None:
    replica = await Replica().start()
    settings = ServiceSettings(redis_url=redis_url, secret_key=SECRET_KEY)
    database = Database(registry_database, settings, application_name="test")
    sums = EngineTokenSums(database)
    try:
        async with run_registry(registry_prober=True, registry_scrape_interval_s=0.1, redis_timeout_s=2.0) as registry:
            model = await create_model(registry)
            backend = await create_backend(
                registry, model["id"], url=replica.url, engine="ias-sim", upstream_model="tiny"
            )
            await until_kept(database, backend["id"], 1)
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 7,
                "ignore_eos": True,
            }
            usage = (await replica.ask("POST", "/v1/chat/completions", json=body)).json()["usage"]
            await asyncio.sleep(0.5)  # it is read once more
            removed = await registry.delete(f"/registry/v1/backends/{backend['id']}")
            assert removed.is_success, removed.text
            await until_kept(database, backend["id"], 2)
        now = datetime.now(UTC)
        [engine] = await sums.list_sums(now - timedelta(hours=1), now + timedelta(hours=1))
    finally:
        replica.kill()
        await database.close()
    assert engine.served_ids == [UUID(backend["id"])]
    assert (engine.counted.prompt_tokens, engine.counted.generation_tokens, engine.counted.restarts) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
        0,
    )


async def until_kept(database: Database, backend_id: str, readings: int) -> None:
    async with asyncio.timeout(30):
        while True:
            async with database.transaction() as connection:
                found = await connection.scalar(
                    text("SELECT count(*) FROM engine_token_readings WHERE backend_id = :id"), {"id": backend_id}
                )
            if found >= readings:
                return
            await asyncio.sleep(0.05)
