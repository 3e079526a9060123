"""The platform, from nothing to ready and back: what is started, in which order, and what ends it.

postgres, redis and the engine at once → a database per service, migrated → management, consumers and gateway at once →
bootstrap through the management API → `connection.json`. Stopping goes the other way round.
"""

import asyncio
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx

from ias.kit.migrations import migrate
from ias.local.bootstrap import bootstrap
from ias.local.connection import Connection, write_connection
from ias.local.data_directory import DataDirectory, explain_os_errors, find_document, write_private
from ias.local.errors import InterruptedStartError, PlatformError
from ias.local.generated_secrets import GeneratedSecrets, load_or_generate
from ias.local.lock import hold_lock
from ias.local.options import UpOptions
from ias.local.ports import find_free_ports, is_free, require_free
from ias.local.postgres import Postgres, create_databases, postgres_spec, prepare_postgres
from ias.local.process import PlatformProcess
from ias.local.processes import SERVICES, Place, consumers_spec, engine_spec, gateway_spec, management_spec
from ias.local.redis import Redis, prepare_redis, redis_spec
from ias.local.supervisor import Report, Supervisor

_PROBE_TIMEOUT_S = 2.0
_BOOTSTRAP_TIMEOUT_S = 15.0
_LASTING_PORTS = ("engine_port", "metrics_port")
"""What others were told of: the next start takes them again where they are free."""


async def run_platform(options: UpOptions, report: Report, on_ready: Callable[[Connection], None]) -> None:
    """Start everything, call `on_ready`, and return after a signal has ended it and everything is stopped.

    Raises:
        PlatformError: it could not start or could not go on. Everything is stopped then, too.
    """
    os.umask(0o077)  # whatever the platform's processes write is for this user alone
    data = DataDirectory(options.data_root)
    try:
        data.create()
        with hold_lock(data.lock):
            data.connection.unlink(missing_ok=True)
            async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
                await Platform(options, data, report, client).run(on_ready)
    except InterruptedStartError:
        _delete_ephemeral(options)
        raise
    except PlatformError:
        if not _was_started(data):  # there is nothing to look into
            _delete_ephemeral(options)
        raise
    _delete_ephemeral(options)


def _was_started(data: DataDirectory) -> bool:
    try:
        return data.log_file("postgres").exists()
    except OSError:
        return False  # the very place is out of reach


def _delete_ephemeral(options: UpOptions) -> None:
    if options.ephemeral:
        shutil.rmtree(options.data_root, ignore_errors=True)


class Platform:
    """One run of the platform on one data directory."""

    def __init__(self, options: UpOptions, data: DataDirectory, report: Report, client: httpx.AsyncClient) -> None:
        self._options = options
        self._data = data
        self._report = report
        self._client = client
        self._supervisor = Supervisor(report, self._take_change)
        self._phase = "starting"
        self._error: str | None = None
        self._started_at = time.time()
        self._signals = 0
        self._stop = asyncio.Event()
        self._connection: Connection | None = None

    async def run(self, on_ready: Callable[[Connection], None]) -> None:
        """See `run_platform`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take_signal)
        try:
            await self._start_and_wait(on_ready)
        except PlatformError as error:
            self._phase, self._error = "failed", str(error)
            raise
        except Exception as error:  # what was not foreseen goes to the log whole, and to the terminal as a line
            self._keep_traceback(error)
            self._phase, self._error = "failed", f"{type(error).__name__}: {error}"
            raise PlatformError(
                f"something unexpected went wrong ({type(error).__name__}: {error})",
                f"the whole story is in {self._data.log_file('up')}",
            ) from error
        finally:
            await self._shut_down()

    async def _start_and_wait(self, on_ready: Callable[[Connection], None]) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        failed = asyncio.create_task(self._supervisor.wait_failed())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                connection = starting.result()
                self._phase = "running"
                self._take_change()
                on_ready(connection)
                await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            elif stopped.done():
                raise InterruptedStartError("stopped before it was up")
            if failed.done():
                raise failed.result()
        finally:
            for task in (starting, stopped, failed):
                task.cancel()
            await asyncio.gather(starting, stopped, failed, return_exceptions=True)

    async def _start(self) -> Connection:
        self._require_ports()
        secrets = load_or_generate(self._data.secrets)
        place = await self._prepare(secrets)
        postgres = self._supervisor.add(postgres_spec(place.postgres, self._data))
        redis = self._supervisor.add(redis_spec(place.redis, self._data))
        engines = [] if self._options.upstream else [self._supervisor.add(engine_spec(place))]
        services = [self._supervisor.add(spec(place)) for spec in (management_spec, consumers_spec, gateway_spec)]

        async def start_postgres() -> None:
            await self._start_one(postgres, f" {place.postgres.server.version_text}")
            await self._migrate(place.postgres, secrets)

        async def start_services() -> None:
            await _all(start_postgres(), self._start_one(redis, f" {place.redis.server.version_text}"))
            await _all(*(self._start_one(service) for service in services))

        await _all(start_services(), *(self._start_one(engine) for engine in engines))
        return await self._bootstrap(place)

    async def _prepare(self, secrets: GeneratedSecrets) -> Place:
        """Everything that must be there before a process can start."""
        first = not (self._data.postgres / "data").exists()
        self._report(f"{'making' if first else 'found'} the platform's data in {self._data.root}")
        postgres_port, redis_port, consumers_port, *lasting_ports = find_free_ports(3 + len(_LASTING_PORTS))
        remembered = find_document(self._data.bootstrap) or {}
        postgres: Postgres
        redis: Redis
        postgres, redis = await asyncio.gather(
            prepare_postgres(self._data, secrets, port=postgres_port),
            prepare_redis(self._data, password=secrets.redis_password, port=redis_port),
        )
        lasting = dict(zip(_LASTING_PORTS, lasting_ports, strict=True))
        known = {name: remembered.get(name) for name in _LASTING_PORTS}
        lasting |= {name: port for name, port in known.items() if isinstance(port, int) and is_free(port)}
        write_private(self._data.bootstrap, {**remembered, **lasting})
        return Place(
            options=self._options,
            data=self._data,
            secrets=secrets,
            postgres=postgres,
            redis=redis,
            engine_port=lasting["engine_port"],
            metrics_port=lasting["metrics_port"],
            consumers_port=consumers_port,
            client=self._client,
        )

    async def _migrate(self, postgres: Postgres, secrets: GeneratedSecrets) -> None:
        await create_databases(postgres, secrets, SERVICES)
        for service in SERVICES:
            try:
                await asyncio.to_thread(migrate, service, postgres.database_url(service, secrets))
            except Exception as error:  # whatever Alembic, SQLAlchemy or the driver raises, it is one failure
                self._keep_traceback(error)
                raise PlatformError(
                    f"the database of {service} could not be migrated ({type(error).__name__})",
                    f"the cause is in {self._data.log_file('up')}",
                ) from error
        self._report(f"databases migrated: {', '.join(SERVICES)}")

    async def _start_one(self, process: PlatformProcess, version: str = "") -> None:
        await self._supervisor.start(process)
        self._report(f"{process.spec.name}{version} ready")

    async def _bootstrap(self, place: Place) -> Connection:
        async with httpx.AsyncClient(timeout=_BOOTSTRAP_TIMEOUT_S, trust_env=False) as client:
            connection = await bootstrap(place, client)
        self._report(f"org, project, key, budget and the model {connection.model} are there")
        self._connection = connection
        self._write_connection()
        return connection

    def _keep_traceback(self, error: BaseException) -> None:
        with explain_os_errors(self._data.logs), self._data.log_file("up").open("a") as log:
            log.writelines(traceback.format_exception(error))

    def _require_ports(self) -> None:
        require_free(self._options.port, self._options.host, "--port")
        require_free(self._options.management_port, self._options.host, "--management-port")

    def _take_signal(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._report("asked again: ending every process at once")
            self._supervisor.kill()

    async def _shut_down(self) -> None:
        if self._phase != "failed":
            self._phase = "stopping"
        self._connection = None
        self._data.connection.unlink(missing_ok=True)
        await self._supervisor.stop()
        if self._phase != "failed":
            self._phase = "stopped"
        self._take_change()
        self._report("everything is stopped")

    def _take_change(self) -> None:
        """Write what others read about this platform. It informs only: a full disk must not end a platform that runs."""
        try:
            self._write_state()
            self._write_connection()
        except PlatformError as error:
            self._report(str(error))

    def _write_connection(self) -> None:
        if self._connection is not None:
            pids = {"supervisor": os.getpid(), **self._supervisor.pids()}
            write_connection(self._data.connection, replace(self._connection, pids=pids))

    def _write_state(self) -> None:
        write_private(
            self._data.state,
            {
                "phase": self._phase,
                "error": self._error,
                "supervisor_pid": os.getpid(),
                "started_at": self._started_at,
                "gateway_port": self._options.port,
                "management_port": self._options.management_port,
                "processes": self._supervisor.describe(),
            },
        )


async def _all(*work: Coroutine[Any, Any, None]) -> None:
    """Run all of it at once; the first failure ends the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
