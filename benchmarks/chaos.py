"""kill -9 in a loop, under load, of gateways, consumers, billing, RabbitMQ, PostgreSQL and Redis; then the books are checked.

The platform and the comparison are those of tests/proofs, on servers of the run's own. Exit status 1 when anything was lost,
doubled, overspent or otherwise wrong.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.proofs.chaos import INPUT_USD, OUTPUT_USD, Ceiling, Chaos, Clients, Report, Servers, strike_under_load
from tests.proofs.platform import Platform, Tenant, run_platform
from tests.servers import postgres_server
from tests.servers.killable import PostgresProcess, RabbitProcess
from tests.servers.redis_process import start_private
from tests.servers.run import TestRun, create_run

from ias.kit.migrations import migrate

KEPT = [
    "gateway worker",
    "gateway worker",
    "gateway",
    "consumer",
    "consumer",
    "billing",
    "redis",
    "postgresql",
    "rabbitmq",
]
"""Whose data is kept; without RabbitMQ the bus is Redis Streams."""
LOST = ["redis and its data", "consumer", "rabbitmq"]
"""Redis loses its data, while gateways live: what a dead one had reserved there is known to nobody else."""
TIGHT_NANO_USD = 400 * 32 * 2_000
"""A budget that the load runs into: about four hundred answers of 32 tokens."""


@contextmanager
def run_servers(run: TestRun, *, rabbitmq: bool) -> Iterator[Servers]:
    servers = Servers(start_private(run, durable=True), PostgresProcess(run), RabbitProcess(run) if rabbitmq else None)
    try:
        for server in (servers.postgres, servers.rabbitmq):
            if server is not None:
                server.start()
        yield servers
    finally:
        for server in (servers.redis, servers.postgres, servers.rabbitmq):
            if server is not None:
                server.stop()


async def run_phase(servers: Servers, directory: Path, victims: list[str], minutes: float, clients: Clients) -> Report:
    """One platform on the servers, killed for so long."""
    if servers.postgres is None:
        raise AssertionError("the benchmark kills PostgreSQL too")
    url = servers.postgres.url
    databases = {name: postgres_server.create_database(url, name) for name in ("billing", "analytics")}
    for service, dsn in databases.items():
        await asyncio.to_thread(migrate, service, dsn)
    tenants = [Tenant() for _ in range(3)]
    running = run_platform(
        directory,
        redis_url=servers.redis.url,
        bus_url=servers.rabbitmq.url if servers.rabbitmq else servers.redis.url,
        databases=databases,
        tenants=tenants,
        consumers=2,
        engine_options=("--tokens-per-second", "100", "--ttft-ms", "20"),
    )
    async with running as platform:
        ceilings = await create_ceilings(platform, tenants)

        async def act(chaos: Chaos) -> None:
            await chaos.strike_for(minutes * 60, [name for name in victims if name in chaos.strikes()], pause_s=1.0)

        return await strike_under_load(platform, servers, ceilings, clients, act)


async def create_ceilings(platform: Platform, tenants: list[Tenant]) -> list[Ceiling]:
    """A budget that is run into, and wide ones."""
    await platform.create_price(input_usd=INPUT_USD, output_usd=OUTPUT_USD)
    limits = [TIGHT_NANO_USD, *([10**12] * (len(tenants) - 1))]
    ceilings = []
    for tenant, limit in zip(tenants, limits, strict=True):
        budget = await platform.create_budget(tenant, limit_usd=format(limit / 1e9, ".9f"), mode="hard")
        ceilings.append(Ceiling(tenant, budget, limit))
    return ceilings


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="for each of the two phases")
    parser.add_argument("--clients", type=int, default=8, help="of each of the three tenants")
    parser.add_argument(
        "--phase", choices=("kept", "lost", "both"), default="both", help="Redis keeps its data, or loses it"
    )
    parser.add_argument("--bus", choices=("rabbitmq", "redis"), default="rabbitmq")
    arguments = parser.parse_args()
    clients = Clients(each=arguments.clients)
    run = create_run(os.getpid())
    phases = [] if arguments.phase == "lost" else [("data kept", KEPT)]
    if (
        arguments.phase != "kept" and arguments.bus == "rabbitmq"
    ):  # on Redis Streams records would be lost with the rest
        phases.append(("Redis without its data", LOST))
    failed = False
    try:
        for name, victims in phases:
            with (
                tempfile.TemporaryDirectory() as directory,
                run_servers(run, rabbitmq=arguments.bus == "rabbitmq") as servers,
            ):
                report = await run_phase(servers, Path(directory), victims, arguments.minutes, clients)
            print(f"{name}, bus {arguments.bus}")
            print("\n".join(f"  {line}" for line in [*report.lines(), *report.problems[:20]]), flush=True)
            failed = failed or bool(report.problems)
    finally:
        run.stop_everything()
    return int(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
