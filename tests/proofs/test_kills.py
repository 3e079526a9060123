"""Gateways, consumers, billing and Redis are killed again and again under load: nothing is lost, doubled or overspent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proofs.chaos import INPUT_USD, OUTPUT_USD, Ceiling, Chaos, Clients, Servers, strike_under_load
from tests.proofs.platform import Tenant, run_platform
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
