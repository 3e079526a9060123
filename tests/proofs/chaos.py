"""kill -9 in a loop, under load; then the books. `benchmarks/chaos.py` runs it for minutes, a test for seconds.

What is in doubt after the kills is decided as time would: reservations of gateways that died expire at once instead of after
`IAS_GATEWAY_TOTAL_TIMEOUT_S` and a minute.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ias.contracts import redis_keys
from tests.proofs.books import Findings, Rates, compare, read_engine_log, read_ledger
from tests.proofs.load import Answered, Load
from tests.proofs.platform import Platform, Tenant
from tests.servers.killable import PostgresProcess, RabbitProcess
from tests.servers.redis_process import RedisProcess

RATES = Rates(10_000_000, 5_000_000, 2_000_000_000)
INPUT_USD, OUTPUT_USD = "0.01", "2"
_RECOVERY_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Servers:
    """What may be killed beside the platform's own processes."""

    redis: RedisProcess
    postgres: PostgresProcess | None = None
    rabbitmq: RabbitProcess | None = None


@dataclass(frozen=True)
class Ceiling:
    """A hard budget that the load is to run into."""

    tenant: Tenant
    budget_id: str
    limit_nano_usd: int


@dataclass
class Report:
    """What came of it."""

    kills: Counter[str]
    outcomes: Counter[str]
    findings: Findings
    overspent_nano_usd: int
    counters_differ: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        found = self.findings
        return [
            f"requests {sum(self.outcomes.values()):,}, of which the engine served {found.served:,}",
            f"kills {sum(self.kills.values())}: " + ", ".join(f"{name} {n}" for name, n in self.kills.most_common()),
            f"booked to the token {found.exact:,}, left by their clients {found.left:,}, estimated {found.estimated:,}",
            f"of the estimated, streams booked at what their gateway had noted {found.interrupted:,}",
            f"lost {len(found.lost)}, doubled {len(found.doubled)}, wrong {len(found.wrong)}",
            f"overspent {self.overspent_nano_usd} nano-USD, counters that differ {len(self.counters_differ)}",
        ]

    @property
    def problems(self) -> list[str]:
        overspent = [f"overspent by {self.overspent_nano_usd}"] if self.overspent_nano_usd else []
        return [*self.findings.problems, *self.counters_differ, *overspent]


class Chaos:
    """Kills what the schedule names, and starts it again."""

    def __init__(self, platform: Platform, servers: Servers) -> None:
        self._platform = platform
        self._servers = servers
        self._chance = random.Random()  # noqa: S311  # whom it hits is no secret
        self.kills: Counter[str] = Counter()

    def strikes(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What may be killed here."""
        strikes: dict[str, Callable[[], Awaitable[None]]] = {
            "gateway worker": self._kill_worker,
            "gateway": self._kill_gateway,
            "consumer": self._kill_consumer,
            "billing": self._kill_billing,
            "redis": self._kill_redis,
            "redis and its data": self._lose_redis,
        }
        if (postgres := self._servers.postgres) is not None:
            strikes["postgresql"] = lambda: _restart(postgres)
        if (rabbitmq := self._servers.rabbitmq) is not None:
            strikes["rabbitmq"] = lambda: _restart(rabbitmq)
        return strikes

    async def strike(self, name: str) -> None:
        """Kill one of them, and start it again."""
        await self.strikes()[name]()
        self.kills[name] += 1

    async def strike_each(self, names: Sequence[str], pause_s: float) -> None:
        """One after the other, each when the gateways serve again."""
        for name in names:
            await asyncio.sleep(pause_s)
            await self.strike(name)
            await self._platform.gateway.until_ready()

    async def strike_for(self, duration_s: float, names: list[str], pause_s: float) -> None:
        """One after the other, in a random order that names each as often."""
        until = asyncio.get_running_loop().time() + duration_s
        waiting: list[str] = []
        while asyncio.get_running_loop().time() < until:
            if not waiting:
                waiting = self._chance.sample(names, len(names))
            await self.strike(waiting.pop())
            await self._platform.gateway.until_ready()
            await asyncio.sleep(self._chance.uniform(0.2, 1.8) * pause_s)

    async def _kill_worker(self) -> None:
        self._platform.gateway.kill_worker()

    async def _kill_gateway(self) -> None:
        self._platform.gateway.kill()
        self._platform.gateway.start()

    async def _kill_billing(self) -> None:
        self._platform.billing.kill()
        self._platform.billing.start()

    async def _kill_consumer(self) -> None:
        consumer = self._chance.choice(self._platform.consumers)
        consumer.kill()
        consumer.start()

    async def _kill_redis(self) -> None:
        self._servers.redis.kill()
        await asyncio.to_thread(self._servers.redis.start)

    async def _lose_redis(self) -> None:
        self._servers.redis.kill()
        self._servers.redis.lose_data()
        await asyncio.to_thread(self._servers.redis.start)
        await self._platform.push_documents()


async def _restart(server: PostgresProcess | RabbitProcess) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@dataclass(frozen=True)
class Clients:
    """Who asks: so many at a time for each tenant."""

    each: int = 8
    pause_s: float = 0.05
    tokens_max: int = 64


async def strike_under_load(
    platform: Platform,
    servers: Servers,
    ceilings: list[Ceiling],
    clients: Clients,
    act: Callable[[Chaos], Awaitable[None]],
) -> Report:
    """Load all tenants, let `act` kill, recover, and hold the books against the engine's own count."""
    chaos = Chaos(platform, servers)
    loads = [
        Load(platform.gateway.port, tenant.key, tokens_max=clients.tokens_max, pause_s=clients.pause_s)
        for tenant in platform.tenants
    ]
    stop = asyncio.Event()
    running = [asyncio.create_task(load.run_until(stop)) for load in loads for _ in range(clients.each)]
    await act(chaos)
    stop.set()
    await asyncio.gather(*running)
    for program in platform.programs:
        await program.until_ready()
    answered = {request_id: told for load in loads for request_id, told in load.answered.items()}
    findings = await _recover(platform, answered)
    outcomes: Counter[str] = sum((load.outcomes for load in loads), Counter())
    report = Report(chaos.kills, outcomes, findings, 0)
    await _check_ceilings(platform, ceilings, report)
    return report


async def _recover(platform: Platform, answered: Mapping[str, Answered]) -> Findings:
    """The books, once nothing is in doubt any more; as they are where that does not come about."""

    async def read_books() -> Findings:
        entries = await read_ledger(platform.databases["billing"])
        return compare(read_engine_log(platform.engine.log), entries, answered, RATES)

    async def nothing_is_in_doubt() -> bool:
        spool = platform.gateway.directory / "spool"
        if [*spool.glob("*/*.jsonl"), *spool.glob("*/progress")]:
            return False
        return await _expire_reservations(platform) == 0 and not (await read_books()).lost

    await asyncio.sleep(2.0)  # what lives settles by itself
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_RECOVERY_TIMEOUT_S):
            while not await _try(nothing_is_in_doubt):
                await asyncio.sleep(0.3)
    return await read_books()


async def _try(question: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await question()
    except (OSError, RedisError, asyncpg.PostgresError):
        return False


async def _expire_reservations(platform: Platform) -> int:
    """Let all deadlines pass now; how many there were."""
    left = 0
    async with Redis.from_url(platform.redis_url) as redis:
        for tenant in platform.tenants:
            deadlines = redis_keys.reservation_deadlines(tenant.org_id)
            held: list[bytes] = await redis.zrange(deadlines, 0, -1)
            left += len(held)
            for request_id in held:
                await redis.zadd(deadlines, {request_id: 1}, xx=True)
    return left


async def _check_ceilings(platform: Platform, ceilings: list[Ceiling], report: Report) -> None:
    """No hard budget is overspent by the ledger, and its counter says what the ledger says."""
    for ceiling in ceilings:
        entries = await read_ledger(platform.databases["billing"])
        booked = sum(entry.cost_nano_usd for entry in entries if entry.org_id == ceiling.tenant.org_id)
        report.overspent_nano_usd += max(0, booked - ceiling.limit_nano_usd)
        counter = redis_keys.budget_counter(ceiling.tenant.org_id, ceiling.budget_id, "total")
        says: dict[str, int] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):  # late bookings are brought into counters by a timer
                while says.get("settled") != booked:
                    async with Redis.from_url(platform.redis_url) as redis:
                        settled, reserved = await redis.hmget(counter, ["settled", "reserved"])
                    says = {"settled": int(settled or 0), "reserved": int(reserved or 0)}
                    await asyncio.sleep(0.1)
        if (says.get("settled"), says.get("reserved")) != (booked, 0):
            report.counters_differ.append(f"{counter}: {says}, the ledger {booked}")
