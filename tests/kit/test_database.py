"""Transactions commit as a whole or not at all, and nothing waits for ever."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ias.kit.database import Database
from ias.kit.settings import ServiceSettings


def settings(**changed: float) -> ServiceSettings:
    return ServiceSettings(
        secret_key=base64.b64encode(bytes(32)).decode(), redis_url="redis://127.0.0.1:1/0", **changed
    )  # type: ignore[arg-type]


@pytest.fixture
async def database(make_database: Callable[[str], str]) -> AsyncIterator[Database]:
    database = Database(
        make_database("kit"), settings(database_pool_size=1, database_timeout_s=0.3), application_name="test"
    )
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE t (n int)"))
    yield database
    await database.close()


async def count(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM t"))).scalar_one())


async def test_what_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="on second thoughts"):  # noqa: PT012  # the block is what is tested
        async with database.transaction() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            raise RuntimeError("on second thoughts")
    assert await count(database) == 0
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
    assert await count(database) == 1


async def test_times_are_utc(database: Database) -> None:
    async with database.transaction() as connection:
        assert (await connection.execute(text("SHOW timezone"))).scalar_one() == "UTC"


async def test_a_statement_that_takes_too_long_is_ended_and_the_pool_survives(database: Database) -> None:
    with pytest.raises((OSError, DBAPIError)):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    assert await count(database) == 0


async def test_waiting_for_a_connection_has_a_deadline(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(PoolTimeoutError):
            await asyncio.create_task(count(database))


async def test_a_lost_connection_is_replaced(database: Database) -> None:
    with pytest.raises((OSError, DBAPIError)):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    await database.ping()
    assert await count(database) == 0


async def test_a_connection_that_was_ended_while_it_rested_costs_nobody_an_error(
    database: Database, make_database: Callable[[str], str]
) -> None:
    async with database.transaction() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    other = Database(make_database("other"), settings(), application_name="test")
    async with other.transaction() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        await connection.execute(text("SELECT pg_sleep(0.2)"))  # until the end of it has arrived here
    await other.close()
    assert await count(database) == 0


async def test_a_server_that_is_away_is_an_os_error() -> None:
    database = Database("postgresql://ias:ias@127.0.0.1:1/x", settings(), application_name="test")
    with pytest.raises(OSError, match="1"):
        await database.ping()
    await database.close()
