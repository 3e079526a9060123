"""PostgreSQL: one server for the whole run, a fresh database for each test that asks."""

import asyncio
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from tests.servers import containers, programs
from tests.servers.launch import Kept, Launch, ServerStartError, accepts_connections, free_port, start
from tests.servers.run import Server, TestRun

IMAGE = "postgres:16-alpine"
OWNER = "ias_test_service"
"""The role, and its password, that owns the databases of tests."""
# Several workers may get here at once.
_ENSURE_OWNER = f"""
    DO $$ BEGIN
        PERFORM pg_advisory_xact_lock(1);
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN
            CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER}';
        END IF;
    END $$
"""
INIT_TIMEOUT_S = 60
STATEMENT_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 60.0
# Durability is what tests give up for speed; the connections are for several workers with a pool per service.
OPTIONS = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=300", "shared_buffers=64MB",
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "jit=off", "timezone=UTC",
)  # fmt: skip


def shared_postgres(run: TestRun) -> str:
    """The DSN of a role that may create databases, on a server that all workers of the run share.

    Raises:
        ServerUnavailableError: there is none and it cannot be had.
    """
    if url := os.environ.get(programs.POSTGRES.url_variable):
        return url
    return run.shared("postgres", lambda directory: _start(run, directory)).url


def create_database(server_url: str, name: str, *, like: str | None = None) -> str:
    """The DSN of a new database whose name begins with `name`, as the role that owns it.

    Empty, or a copy of one that nobody is connected to. As in production, the role is no superuser: row-level security holds
    for it.
    """
    template = "template0" if like is None else urlsplit(like).path.lstrip("/")
    database = f"{re.sub(r'[^a-z0-9_]', '_', name.lower())[:40]}_{uuid4().hex[:12]}"
    _run(_create_database(server_url, database, template))
    server = urlsplit(server_url)
    address = server.netloc.rpartition("@")[2]
    return urlunsplit(server._replace(netloc=f"{OWNER}:{OWNER}@{address}", path=f"/{database}"))


def drop_database(server_url: str, dsn: str) -> None:
    """Drop a database, with the connections that a test may have left on it."""
    database = urlsplit(dsn).path.lstrip("/")
    _run(_execute(server_url, f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'))


def _start(run: TestRun, directory: Path) -> Server:
    program = programs.find_or_install(programs.POSTGRES)
    if program is None:
        return _start_container()
    data = prepare(program, directory)
    port = free_port()
    kept = start_on(run, program, data, port)
    return Server(url=server_url(port), keeper_pids=(kept.keeper_pid,))


def server_url(port: int) -> str:
    """The DSN of the role that may create databases."""
    return f"postgresql://ias:ias@127.0.0.1:{port}/postgres"


def prepare(program: Path, directory: Path) -> Path:
    """Initialise a data directory within the given one, for the account that the server will run under."""
    user = _own_account()
    if user:
        shutil.chown(directory, user)
    _initialise(program.with_name("initdb"), directory / "data", user)
    return directory / "data"


def start_on(run: TestRun, program: Path, data: Path, port: int, *options: str) -> Kept:
    """A server on a given port; the options are added to those of all tests, and win."""
    command = [str(program), "-D", str(data), "-p", str(port)]
    for option in (*OPTIONS, *options):
        command += ["-c", option]
    # SIGQUIT ends it at once and, unlike SIGKILL, gives its shared memory back.
    launch = Launch(
        directory=data.parent,
        command=command,
        owner_pid=run.owner_pid,
        stop_signal=signal.SIGQUIT,
        user=_own_account(),
    )
    return start(launch, lambda: accepts_connections(port) and _answers(server_url(port)))


def _own_account() -> str:
    return _account() if os.geteuid() == 0 else ""


def _account() -> str:
    """PostgreSQL refuses to run as root: the package's own account, or nobody."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise programs.ServerUnavailableError("PostgreSQL does not run as root, and there is no account to run it under")


def _initialise(initdb: Path, data: Path, user: str) -> None:
    account = pwd.getpwnam(user) if user else None
    subprocess.run(
        [initdb, "-D", data, "--username=ias", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        check=True,
        capture_output=True,
        timeout=INIT_TIMEOUT_S,
        cwd=data.parent,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )


def _start_container() -> Server:
    if not containers.engine_answers():
        raise programs.ServerUnavailableError(programs.POSTGRES.explain())
    environment = {"POSTGRES_USER": "ias", "POSTGRES_PASSWORD": "ias", "POSTGRES_DB": "postgres"}
    container = containers.start_container(
        IMAGE, (5432,), environment, "postgres -c fsync=off -c synchronous_commit=off -c max_connections=300"
    )
    url = f"postgresql://ias:ias@127.0.0.1:{container.ports[5432]}/postgres"
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not _answers(url):
        if time.monotonic() > deadline:
            raise ServerStartError(f"the container of {IMAGE} does not answer")
        time.sleep(0.1)
    return Server(url=url, container_id=container.id)


def _answers(url: str) -> bool:
    try:
        _run(_execute(url, "SELECT 1"))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


async def _create_database(server_url: str, database: str, template: str) -> None:
    await _execute(server_url, _ENSURE_OWNER)
    await _execute(server_url, f'CREATE DATABASE "{database}" TEMPLATE "{template}" OWNER {OWNER}')


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=STATEMENT_TIMEOUT_S, command_timeout=STATEMENT_TIMEOUT_S)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _run(work: Coroutine[object, object, None]) -> None:
    """Run to the end on a thread of its own: the test that asks may have a running event loop."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, work).result(timeout=2 * STATEMENT_TIMEOUT_S)
