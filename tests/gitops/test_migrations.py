"""The tables that queries are written against are the ones that migrations make."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, pool
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from ias.gitops.store.tables import METADATA
from ias.kit.migrations import migrate


def compare(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, METADATA))


async def test_tables_in_code_and_in_the_database_are_the_same(make_database: Callable[[str], str]) -> None:
    dsn = make_database("gitops")
    with ThreadPoolExecutor(1) as executor:
        for revision in ("head", "base", "head"):
            executor.submit(migrate, "gitops", dsn, revision=revision).result(60)
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+asyncpg"), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []
    await engine.dispose()
