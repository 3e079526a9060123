"""Usage records from the spool through RabbitMQ (or Redis Streams) into the ledger: how many in a second.

The records lie in a spool as gateways leave them. Measured is from the first one that is published to the last one that is booked;
publisher, broker, consumers and PostgreSQL share the machine. PostgreSQL and the broker are servers of the run's own; PostgreSQL
does not wait for the disk (`fsync=off`), which the figures of a machine with a real one lack.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import psutil
from tests.servers import postgres_server, rabbitmq_server, redis_server
from tests.servers.launch import free_port
from tests.servers.run import TestRun, create_run

from ias.billing.store import prices
from ias.contracts.ids import request_id_of, uuid7
from ias.gateway.publishing import SpoolPublisher
from ias.gateway.spool import Spool
from ias.kit import bus
from ias.kit.database import Database
from ias.kit.migrations import migrate
from ias.kit.settings import ServiceSettings

ORGS, KEYS_PER_ORG = 50, 20
SERVERS = ("postgres", "beam.smp", "redis-server")
_SEGMENT_RECORDS = 20_000
"""As many as a gateway at 20,000 requests a second leaves in a segment."""


def write_spool(root: Path, records: int, price: "prices.Price") -> None:
    """The records, in segments of a worker that is gone. They are those of some orgs' keys, in turns."""
    orgs = [(uuid4(), uuid4(), [uuid4() for _ in range(KEYS_PER_ORG)]) for _ in range(ORGS)]
    directory = root / "1-1"
    directory.mkdir(parents=True)
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    file = None
    for number in range(records):
        if number % _SEGMENT_RECORDS == 0:
            if file is not None:
                file.close()
            file = (directory / f"{number:020d}.jsonl").open("w")
        org, project, keys = orgs[number % ORGS]
        record_id = uuid7()
        file.write(  # type: ignore[union-attr]  # opened for the first number
            f'{{"id":"{record_id}","request_id":"{request_id_of(record_id)}","occurred_at":"{moment}","org_id":"{org}",'
            f'"project_id":"{project}","api_key_id":"{keys[number % KEYS_PER_ORG]}","user_id":null,"service_account_id":null,'
            f'"endpoint":"/v1/chat/completions","model":"m","backend_id":"backend","streamed":true,"status":200,'
            f'"outcome":"completed","input_tokens":{number % 900},"cached_input_tokens":0,"output_tokens":{number % 300},'
            f'"estimated":false,"price_id":"{price.id}","price_version":1,"cost_nano_usd":{number % 900 + 2 * (number % 300)},'
            f'"ttft_ms":25.5,"duration_ms":412.25,"decision":{{"backend":"backend","budgets":["{project}"],'
            f'"reserved_nano_usd":2500,"remaining_nano_usd":1000000}}}}\n'
        )
    if file is not None:
        file.close()


async def create_price(settings: ServiceSettings, dsn: str) -> "prices.Price":
    """The price that the records name: 1 and 2 nano-USD a token."""
    database = Database(dsn, settings, application_name="benchmark")
    try:
        connection: asyncpg.Connection = await asyncpg.connect(dsn)
        price_id: UUID = uuid7()
        await connection.execute(
            "INSERT INTO prices (id, model, version, effective_at, input_nano_usd_per_million, created_at, created_by,"
            " cached_input_nano_usd_per_million, output_nano_usd_per_million, request_nano_usd)"
            " VALUES ($1, 'm', 1, now(), 1000000, now(), 'benchmark', 1000000, 2000000, 0)",
            price_id,
        )
        await connection.close()
        async with database.transaction() as opened:
            (price,) = await prices.list_prices_by_id(opened, {price_id})
        return price
    finally:
        await database.close()


async def count_entries(connection: "asyncpg.Connection") -> int:
    """Of all orgs, by the balances: counting a million entries would take part in what is measured."""
    await connection.execute("SET ias.orgs = '*'")
    return int(await connection.fetchval("SELECT coalesce(sum(entries), 0) FROM spend_hourly"))


def used_s(run: TestRun, name: str) -> float:
    """CPU time of the run's own servers of a name; other runs may have theirs on the machine."""
    total = 0.0
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.info["name"] != name:
                continue
            lineage = [process, *process.parents()]
            if any(str(run.directory) in " ".join(one.cmdline()) for one in lineage):
                total += sum(process.cpu_times()[:2])
    return total


def used_by_s(processes: "list[subprocess.Popen[bytes]]") -> float:
    """CPU time of processes that were started here."""
    return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in processes)


async def until_ready(port: int) -> None:
    """Starting costs a consumer a second or two of CPU, which is not what is measured."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


async def measure(run: TestRun, environment: dict[str, str], spool: Path, records: int, consumers: int) -> None:
    """Publish and book all of them, and say how fast that was."""
    dsn, bus_url = environment["IAS_BILLING_DATABASE_URL"], environment["IAS_BUS_URL"]
    command = [sys.executable, "-c", "from ias.cli.main import main; main()", "consume", "billing", "--port"]
    ports = [free_port() for _ in range(consumers)]
    with (spool.parent / "consumers.log").open("wb") as log:
        running = [
            subprocess.Popen([*command, str(port)], env=environment, stdout=log, stderr=log)  # noqa: ASYNC220  # nothing else runs yet
            for port in ports
        ]
    connection = await asyncpg.connect(dsn)
    publisher = SpoolPublisher(
        Spool(spool, bytes_max=10**12, fsync="segment"), bus.open_publisher(bus_url), interval_s=1.0
    )
    try:
        await asyncio.gather(*(until_ready(port) for port in ports))
        started, cpu = time.perf_counter(), time.process_time()
        servers = {name: used_s(run, name) for name in SERVERS}
        consumers_s = used_by_s(running)
        publishing = asyncio.create_task(publisher.publish_once())
        published_s = 0.0
        while (booked := await count_entries(connection)) < records:
            await asyncio.sleep(0.25)
            if publishing.done() and not published_s:
                publishing.result()
                published_s = time.perf_counter() - started
                print(f"published: {records / published_s:,.0f} records/s", flush=True)
            if any(process.poll() is not None for process in running):
                sys.exit((spool.parent / "consumers.log").read_text()[-3000:])
        seconds = time.perf_counter() - started
        print(f"booked: {booked:,} records in {seconds:.1f} s, {booked / seconds:,.0f} records/s")
        print(f"CPU of the publisher: {(time.process_time() - cpu) / records * 1e6:.1f} µs a record")
        for name, before_s in servers.items():
            print(f"CPU of {name}: {(used_s(run, name) - before_s) / records * 1e6:.1f} µs a record")
        print(f"CPU of the consumers: {(used_by_s(running) - consumers_s) / records * 1e6:.1f} µs a record")
    finally:
        await connection.close()
        await publisher.close(timeout_s=5)
        for process in running:
            process.terminate()
            process.wait(20)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--consumers", type=int, default=1)
    parser.add_argument("--bus", choices=("rabbitmq", "redis"), default="rabbitmq")
    arguments = parser.parse_args()
    run = create_run(os.getpid())
    try:
        redis_url = redis_server.own_redis(run)
        bus_url = rabbitmq_server.shared_rabbitmq(run).url if arguments.bus == "rabbitmq" else redis_url
        dsn = postgres_server.create_database(postgres_server.shared_postgres(run), "billing")
        await asyncio.to_thread(migrate, "billing", dsn)
        secret = base64.b64encode(os.urandom(32)).decode()
        settings = ServiceSettings(redis_url=redis_url, secret_key=secret)
        environment = {
            **os.environ,
            "IAS_BILLING_DATABASE_URL": dsn,
            "IAS_REDIS_URL": redis_url,
            "IAS_BUS_URL": bus_url,
            "IAS_SECRET_KEY": secret,
        }
        with tempfile.TemporaryDirectory() as directory:
            spool = Path(directory) / "spool"
            write_spool(spool, arguments.records, await create_price(settings, dsn))
            await measure(run, environment, spool, arguments.records, arguments.consumers)
    finally:
        run.stop_everything()


if __name__ == "__main__":
    asyncio.run(main())
