"""PostgreSQL and Redis as this user, root included, in a directory that nobody else may enter."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from ias.local.data_directory import DataDirectory
from ias.local.errors import PlatformError
from ias.local.generated_secrets import GeneratedSecrets, load_or_generate
from ias.local.ports import find_free_ports
from ias.local.postgres import Postgres, create_databases, postgres_spec, prepare_postgres
from ias.local.process import PlatformProcess
from ias.local.redis import Redis, prepare_redis, redis_spec


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "closed" / "ias")
    directory.create()
    (tmp_path / "closed").chmod(0o700)
    return directory


@pytest.fixture
def secrets(data: DataDirectory) -> GeneratedSecrets:
    return load_or_generate(data.secrets)


@asynccontextmanager
async def running(data: DataDirectory, secrets: GeneratedSecrets) -> AsyncIterator[tuple[Postgres, PlatformProcess]]:
    postgres = await prepare_postgres(data, secrets, port=find_free_ports(1)[0])
    process = PlatformProcess(postgres_spec(postgres, data))
    await process.start()
    try:
        await process.wait_ready()
        yield postgres, process
    finally:
        await process.stop()


@asynccontextmanager
async def running_redis(data: DataDirectory, password: str) -> AsyncIterator[Redis]:
    server = await prepare_redis(data, password=password, port=find_free_ports(1)[0])
    process = PlatformProcess(redis_spec(server, data))
    await process.start()
    try:
        await process.wait_ready()
        yield server
    finally:
        await process.stop()


async def test_each_service_owns_its_database_and_the_data_survives_a_restart(
    data: DataDirectory, secrets: GeneratedSecrets
):
    async with running(data, secrets) as (postgres, _):
        await create_databases(postgres, secrets, ["identity", "billing"])
        connection = await asyncpg.connect(postgres.database_url("billing", secrets))
        await connection.execute("CREATE TABLE kept (id int)")
        await connection.execute("INSERT INTO kept VALUES (7)")
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        await connection.close()
    async with running(data, secrets) as (postgres, _):
        await create_databases(postgres, secrets, ["identity", "billing"])
        connection = await asyncpg.connect(postgres.database_url("billing", secrets))
        assert await connection.fetchval("SELECT id FROM kept") == 7
        await connection.close()


async def test_a_wrong_password_and_another_services_database_are_refused(
    data: DataDirectory, secrets: GeneratedSecrets
):
    async with running(data, secrets) as (postgres, _):
        await create_databases(postgres, secrets, ["identity", "billing"])
        url = postgres.database_url("billing", secrets)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(secrets.database_password, "wrong"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(url.removesuffix("billing") + "identity")


async def test_a_server_that_outlived_its_supervisor_is_ended_and_a_dead_ones_pid_file_is_no_obstacle(
    data: DataDirectory, secrets: GeneratedSecrets
):
    async with running(data, secrets) as (_, first):
        old = psutil.Process(first.pid)
        async with running(data, secrets):
            assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
    pid_file = data.postgres / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n")  # the id is in use again, by something else
    async with running(data, secrets):
        pass


async def test_a_killed_postgresql_comes_back_with_its_data(data: DataDirectory, secrets: GeneratedSecrets):
    async with running(data, secrets) as (postgres, process):
        await create_databases(postgres, secrets, ["identity"])
        os.kill(process.pid, signal.SIGKILL)
        await process.wait_ended()
    async with running(data, secrets) as (postgres, _):
        connection = await asyncpg.connect(postgres.database_url("identity", secrets))
        await connection.close()


async def test_data_of_another_major_version_is_said_in_one_line(data: DataDirectory, secrets: GeneratedSecrets):
    cluster = data.postgres / "data"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(PlatformError, match="the data is of PostgreSQL 9"):
        await prepare_postgres(data, secrets, port=1)


async def test_a_cluster_that_cannot_be_made_leaves_no_half_of_one(data: DataDirectory, secrets: GeneratedSecrets):
    data.postgres.write_text("in the way")
    with pytest.raises(PlatformError):
        await prepare_postgres(data, secrets, port=1)
    data.postgres.unlink()
    async with running(data, secrets):
        assert sorted(entry.name for entry in data.postgres.iterdir()) == ["data"]


async def test_redis_keeps_what_was_written_and_asks_for_the_password(data: DataDirectory, secrets: GeneratedSecrets):
    async with running_redis(data, secrets.redis_password) as server:
        client = redis.asyncio.Redis.from_url(server.url)
        await client.set("kept", "7")
        await client.aclose()
        stranger = redis.asyncio.Redis(port=server.port)
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.ping()
        await stranger.aclose()
    async with running_redis(data, secrets.redis_password) as server:
        client = redis.asyncio.Redis.from_url(server.url, decode_responses=True)
        assert await client.get("kept") == "7"
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
        await client.aclose()


async def test_redis_data_of_a_newer_version_is_not_silently_lost(data: DataDirectory):
    (data.redis / "version").write_text("99.0.1")
    with pytest.raises(PlatformError, match="the data is of Redis 99"):
        await prepare_redis(data, password="x", port=1)
    await asyncio.sleep(0)
