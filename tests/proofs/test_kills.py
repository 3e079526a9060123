"""Gateways, consumers, billing and Redis are killed again and again under load: nothing is lost, doubled or overspent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from tests.gateway.raw_client import connect, request_bytes
from tests.proofs.books import Entry, read_engine_log, read_ledger
from tests.proofs.chaos import INPUT_USD, OUTPUT_USD, RATES, Ceiling, Chaos, Clients, Servers, strike_under_load
from tests.proofs.platform import MODEL, Platform, Tenant, run_platform
from tests.servers.redis_process import RedisProcess

LIMIT = 150 * 32 * 2_000


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "victims", [("gateway worker", "consumer", "redis", "gateway worker", "billing"), ("redis and its data",) * 3]
)
async def test_whoever_is_killed_each_served_token_is_booked_once_and_no_budget_is_overspent(
    victims: tuple[str, ...],
    private_redis: Callable[..., RedisProcess],
    rabbitmq_url: str,
    proof_databases: dict[str, str],
    tmp_path: Path,
) -> None:
    redis = private_redis(durable=True)
    bus_url = rabbitmq_url if "redis and its data" in victims else redis.url
    tenants = [Tenant(), Tenant()]
    async with run_platform(
        tmp_path,
        redis_url=redis.url,
        bus_url=bus_url,
        tenants=tenants,
        engine_options=("--tokens-per-second", "100", "--ttft-ms", "20"),
        databases=proof_databases,
    ) as platform:
        await platform.create_price(input_usd=INPUT_USD, output_usd=OUTPUT_USD)
        tight = await platform.create_budget(tenants[0], limit_usd=format(LIMIT / 1e9, ".9f"), mode="hard")
        await platform.create_budget(tenants[1], limit_usd="1000", mode="hard")
        ceilings = [Ceiling(tenants[0], tight, LIMIT)]

        async def act(chaos: Chaos) -> None:
            await chaos.strike_each(victims, pause_s=1.0)

        report = await strike_under_load(platform, Servers(redis), ceilings, Clients(), act)
        assert report.problems == [], report.lines()
        assert report.findings.exact > 20, report.lines()


async def until_noted(platform: Platform, output_tokens: int) -> int:
    """Tokens of the one stream under way that its worker has noted, once they are so many."""
    while True:
        for path in platform.gateway.directory.glob("spool/*/progress"):
            [line] = path.read_text().splitlines()
            if (noted := int(json.loads(line)["output_tokens"])) >= output_tokens:
                return noted
        await asyncio.sleep(0.02)


async def read_on(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


async def until_booked(platform: Platform) -> Entry:
    while not (entries := await read_ledger(platform.databases["billing"])):
        await asyncio.sleep(0.1)
    [entry] = entries
    return entry


@pytest.mark.slow
async def test_a_stream_whose_gateway_is_killed_is_booked_at_what_was_passed_on(
    redis_url: str, proof_databases: dict[str, str], tmp_path: Path
) -> None:
    tenant = Tenant()
    async with (
        asyncio.timeout(90),
        run_platform(
            tmp_path,
            redis_url=redis_url,
            bus_url=redis_url,
            tenants=[tenant],
            workers=1,
            engine_options=("--tokens-per-second", "50", "--ttft-ms", "20"),
            databases=proof_databases,
        ) as platform,
        Redis.from_url(redis_url) as redis,
    ):
        await platform.create_price(input_usd=INPUT_USD, output_usd=OUTPUT_USD)
        budget = await platform.create_budget(tenant, limit_usd="1", mode="hard")
        counter = redis_keys.budget_counter(tenant.org_id, budget, "total")
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Go on"}], "max_tokens": 4000, "stream": True}
        async with connect(platform.gateway.port) as client:
            await client.send(request_bytes({**body, "ignore_eos": True}, key=tenant.key))
            status, headers, _ = await client.read_head()
            assert status == 200
            reading = asyncio.create_task(read_on(client.read_chunks()))
            noted = await until_noted(platform, 20)
            platform.gateway.kill()
            reading.cancel()
        platform.gateway.start()
        entry = await until_booked(platform)
        served = read_engine_log(platform.engine.log)[headers["x-request-id"]]
        assert entry.is_interrupted, entry
        assert (entry.rating, entry.estimated, entry.counts[0]) == ("rated", True, served.counts[0])
        assert noted <= entry.counts[2] <= served.counts[2] < 4000
        assert entry.cost_nano_usd == RATES.cost(entry.counts)
        while await redis.hget(counter, "reserved") != b"0":  # type: ignore[misc]  # long before the reservation's deadline
            await asyncio.sleep(0.05)
        assert await redis.hget(counter, "settled") == str(entry.cost_nano_usd).encode()  # type: ignore[misc]
