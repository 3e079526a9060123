"""Five hundred requests at once, of every kind, at several gateway workers: the budget holds and the books balance."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ias.contracts import redis_keys
from tests.proofs.books import Findings, Rates, compare, read_engine_log, read_ledger
from tests.proofs.load import Answered, Load
from tests.proofs.platform import Platform, Tenant, run_platform

RATES = Rates(10_000_000, 5_000_000, 2_000_000_000)
LIMIT = 50 * 32 * 2_000
"""About fifty answers of 32 tokens, which is what the clients ask for on average."""
FAULTS = '{"error": {"status": 503, "rate": 0.04}, "stall": {"rate": 0.1, "after_tokens": 5}}'


async def watch(redis: Redis, counter: str, stop: asyncio.Event) -> tuple[int, int]:
    """The most that a counter ever said: spent and reserved together, and in flight."""
    most = most_reserved = 0
    while not stop.is_set():
        settled, reserved = (int(value or 0) for value in await redis.hmget(counter, ["settled", "reserved"]))
        most, most_reserved = max(most, settled + reserved), max(most_reserved, reserved)
        await asyncio.sleep(0.005)
    return most, most_reserved


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.1)


async def settle_down(platform: Platform, counters: list[str], answered: Mapping[str, Answered]) -> Findings:
    """The books, once everything in flight was settled and booked; as they are where that does not come about."""

    async def is_settled() -> bool:
        async with Redis.from_url(platform.redis_url) as redis:
            reserved = [int(await redis.hget(counter, "reserved") or 0) for counter in counters]  # type: ignore[misc]
        return not any(reserved)

    async def is_booked() -> bool:
        findings = await read_books(platform, answered)
        return not findings.lost and not list(platform.gateway.directory.glob("spool/*/*.jsonl"))

    with contextlib.suppress(TimeoutError):
        await until(is_settled)
        await until(is_booked)
    return await read_books(platform, answered)


async def read_books(platform: Platform, answered: Mapping[str, Answered]) -> Findings:
    entries = await read_ledger(platform.databases["billing"])
    return compare(read_engine_log(platform.engine.log), entries, answered, RATES)


async def sum_parts(redis: Redis, tenant: Tenant, budget: str) -> int:
    """What all parts of a rolling budget say was spent."""
    parts = await redis.keys(redis_keys.budget_counter(tenant.org_id, budget, "*"))
    return sum([int(await redis.hget(part, "settled") or 0) for part in parts])  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_five_hundred_at_once_spend_no_more_than_a_hard_budget_and_are_booked_to_the_token(
    redis_url: str, proof_databases: dict[str, str], tmp_path: Path
) -> None:
    hard, soft = Tenant(), Tenant()
    async with (
        run_platform(
            tmp_path,
            redis_url=redis_url,
            bus_url=redis_url,
            tenants=[hard, soft],
            workers=3,
            engine_options=("--tokens-per-second", "200", "--ttft-ms", "20", "--faults", FAULTS),
            databases=proof_databases,
        ) as platform,
        Redis.from_url(redis_url) as redis,
    ):
        await platform.create_price(input_usd="0.01", output_usd="2")
        limit_usd = format(LIMIT / 1e9, ".9f")
        budgets = [
            (tenant, await platform.create_budget(tenant, limit_usd=limit_usd, mode=mode))
            for tenant, mode in ((hard, "hard"), (soft, "soft"))
        ]
        hard_counter, soft_counter = counters = [
            redis_keys.budget_counter(tenant.org_id, budget, "total") for tenant, budget in budgets
        ]
        rolling = await platform.create_budget(hard, limit_usd=limit_usd, mode="hard", window="rolling_24h")
        stop = asyncio.Event()
        watching = [asyncio.create_task(watch(redis, counter, stop)) for counter in counters]
        loads = [Load(platform.gateway.port, tenant.key) for tenant in (hard, soft)]
        await asyncio.gather(*(loads[0].one() for _ in range(500)), *(loads[1].one() for _ in range(150)))
        assert {await loads[1].ask() for _ in range(5)} == {"429"}, "a soft budget that is spent refuses"
        findings = await settle_down(platform, counters, loads[0].answered | loads[1].answered)
        stop.set()
        (hard_most, _), (soft_most, soft_in_flight) = await asyncio.gather(*watching)

        assert findings.problems == []
        assert findings.exact > 40, findings
        entries = await read_ledger(platform.databases["billing"])
        booked = {tenant: sum(e.cost_nano_usd for e in entries if e.org_id == tenant.org_id) for tenant in (hard, soft)}
        for tenant, counter in ((hard, hard_counter), (soft, soft_counter)):
            assert int(await redis.hget(counter, "settled") or 0) == booked[tenant]  # type: ignore[misc]
            assert await redis.zcard(redis_keys.reservation_deadlines(tenant.org_id)) == 0
        assert await sum_parts(redis, hard, rolling) == booked[hard]
        assert max(hard_most, booked[hard]) <= LIMIT
        assert loads[0].outcomes["429"] > 20, loads[0].outcomes
        assert LIMIT <= booked[soft] <= LIMIT + soft_in_flight
        assert soft_most <= booked[soft] + soft_in_flight
