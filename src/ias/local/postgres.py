"""The embedded PostgreSQL: a cluster of its own under the data directory, one database and one owner per service.

It listens on loopback only, with scram passwords. Each service's role owns its database and is no superuser, so that
row-level security holds for it as it does in production.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from ias.local.data_directory import DataDirectory, explain_os_errors
from ias.local.errors import PlatformError
from ias.local.generated_secrets import GeneratedSecrets
from ias.local.ports import LOOPBACK
from ias.local.privileges import as_unprivileged, give_to_unprivileged
from ias.local.process import ProcessSpec
from ias.local.servers import Server, find_postgres

SUPERUSER = "ias"
_INITDB_TIMEOUT_S = 90
_LEFTOVER_TIMEOUT_S = 20.0

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # nothing replicates from a one-machine platform
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "1000",
    "password_encryption": "scram-sha-256",
}


@dataclass(frozen=True)
class Postgres:
    """A cluster and the server that runs it."""

    server: Server
    cluster: Path
    port: int
    password: str

    def database_url(self, service: str, secrets_: GeneratedSecrets) -> str:
        """The URL at which a service finds its own database."""
        name = database_name(service)
        return f"postgresql://{name}:{secrets_.database_password}@{LOOPBACK}:{self.port}/{name}"


def database_name(service: str) -> str:
    """The name of a service's database, and of the role that owns it."""
    return f"ias_{service}"


async def prepare_postgres(data: DataDirectory, secrets_: GeneratedSecrets, *, port: int) -> Postgres:
    """Find the server, make the cluster when there is none, and clear what a crashed one left.

    Raises:
        PlatformError: no server for this data, or the cluster cannot be made.
    """
    cluster = data.postgres / "data"
    server = await asyncio.to_thread(find_postgres, data_major=_read_major(cluster))
    if not (cluster / "PG_VERSION").exists():
        await asyncio.to_thread(_create_cluster, server, data, secrets_.postgres_password)
    await asyncio.to_thread(_clear_leftover, cluster)
    return Postgres(server=server, cluster=cluster, port=port, password=secrets_.postgres_password)


def postgres_spec(postgres: Postgres, data: DataDirectory) -> ProcessSpec:
    """How to run the server. SIGINT is its "fast" shutdown: sessions are ended, everything is written out."""
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    arguments = [str(postgres.server.program), "-D", str(postgres.cluster), "-p", str(postgres.port), *settings]

    async def probe() -> bool:
        return await _accepts(postgres)

    return ProcessSpec(
        name="postgres",
        arguments=as_unprivileged(arguments, signal_name="SIGINT"),
        environment=_environment(),
        log_file=data.log_file("postgres"),
        probe=probe,
        stop_signal=signal.SIGINT,
        stop_timeout_s=30.0,
    )


async def create_databases(postgres: Postgres, secrets_: GeneratedSecrets, services: list[str]) -> None:
    """Give each service a database and a role that owns it; those that exist are left as they are."""
    connection = await _connect(postgres)
    try:
        for service in services:
            name = database_name(service)
            exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name)
            verb = "ALTER" if exists else "CREATE"
            # Neither a role's name nor its password can be a parameter; both are ours and url-safe.
            await connection.execute(f"{verb} ROLE {name} LOGIN PASSWORD '{secrets_.database_password}'")
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
                await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    finally:
        await connection.close()


async def _connect(postgres: Postgres) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(
        host=LOOPBACK, port=postgres.port, user=SUPERUSER, password=postgres.password, database="postgres", timeout=5
    )


async def _accepts(postgres: Postgres) -> bool:
    try:
        connection = await _connect(postgres)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    await connection.close()
    return True


def _create_cluster(server: Server, data: DataDirectory, password: str) -> None:
    """Run initdb into a directory beside the final one and rename it, so that a crash leaves no half-made cluster."""
    with explain_os_errors(data.postgres):
        data.postgres.mkdir(mode=0o700, exist_ok=True)
        give_to_unprivileged(data.postgres)
    partial = data.postgres / f"new-{secrets.token_hex(4)}"
    password_file = data.postgres / f".password-{secrets.token_hex(4)}"
    with explain_os_errors(data.postgres):
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        give_to_unprivileged(password_file)
    try:
        status, output = _run_initdb(server, partial, password_file, data.log_file("postgres"))
    finally:
        password_file.unlink(missing_ok=True)
    if status != 0:
        raise PlatformError(_explain_initdb(output), f"see {data.log_file('postgres')}")
    with explain_os_errors(data.postgres):
        partial.rename(data.postgres / "data")


def _run_initdb(server: Server, cluster: Path, password_file: Path, log_file: Path) -> tuple[int, str]:
    locale = ["--locale=C"]
    if server.version >= (17,):
        locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    arguments = [
        str(server.program.parent / "initdb"),
        *("-D", str(cluster), "-U", SUPERUSER, "--encoding=UTF8", *locale),
        *("--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums", "--no-instructions"),
    ]
    try:
        finished = subprocess.run(
            as_unprivileged(arguments, signal_name="SIGTERM"),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_INITDB_TIMEOUT_S,
            cwd="/",
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"initdb did not finish within {_INITDB_TIMEOUT_S} s"
    output = finished.stdout + finished.stderr
    with log_file.open("a") as log:
        log.write(output)
    return finished.returncode, output


def _explain_initdb(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "fatal", "no space"))]
    return "the PostgreSQL cluster could not be made (" + ((telling or lines or ["no output"])[-1]).strip() + ")"


def _read_major(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise PlatformError(f"{cluster} is not a PostgreSQL cluster", "start on another --data-dir") from error


def _clear_leftover(cluster: Path) -> None:
    """End a server that outlived its supervisor, and remove the pid file of one that did not.

    PostgreSQL itself takes any living process with the old id for a running server, and ids are used again, after a restart
    of a container above all. The platform's lock is held here, so no other supervisor's server can be meant.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    if _runs_cluster(pid, cluster):
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + _LEFTOVER_TIMEOUT_S
        while _runs_cluster(pid, cluster):
            if time.monotonic() > deadline:
                raise PlatformError(f"an earlier PostgreSQL (process {pid}) still runs on {cluster}", f"kill {pid}")
            time.sleep(0.1)
    pid_file.unlink(missing_ok=True)


def _runs_cluster(pid: int, cluster: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(cluster) in process.cmdline()
    except psutil.Error:
        return False


def _environment() -> dict[str, str]:
    """What the server may know of the caller's environment: where programs are, and nothing that changes PostgreSQL."""
    return {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LC_ALL": "C"}
