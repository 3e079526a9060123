"""A service's migrations make the tables that its queries are written against, and can be undone."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from contracts.generate import discover_services
from sqlalchemy import Connection, MetaData, pool
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from ias.kit.migrations import migrate

_COLUMNS_ALONE = {"analytics", "billing"}
"""Their migrations alone say what is indexed and what a column is without a value; partitions come and go."""

_LEFT = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%' "
    "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
)


async def run_in(dsn: str, ask: Callable[[Connection], Any]) -> Any:
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+asyncpg"), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(ask)
    finally:
        await engine.dispose()


@pytest.mark.parametrize("service", discover_services())
async def test_tables_in_code_and_in_the_database_are_the_same(
    service: str, make_migrated_database: Callable[[str], str]
) -> None:
    tables: MetaData = importlib.import_module(f"ias.{service}.store.tables").METADATA

    def is_compared(_: object, __: object, kind: str, is_in_the_database: bool, other: object) -> bool:
        if service not in _COLUMNS_ALONE:
            return True
        return kind in ("table", "column") and not (kind == "table" and is_in_the_database and other is None)

    def compare(connection: Connection) -> list[Any]:
        with_defaults = service not in _COLUMNS_ALONE
        options = {"compare_type": True, "compare_server_default": with_defaults, "include_object": is_compared}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables))

    assert await run_in(make_migrated_database(service), compare) == []


@pytest.mark.parametrize("service", discover_services())
async def test_going_back_leaves_nothing_behind_and_forward_works_again(
    service: str, make_migrated_database: Callable[[str], str]
) -> None:
    dsn = make_migrated_database(service)
    await asyncio.to_thread(migrate, service, dsn, revision="base")
    assert await run_in(dsn, lambda connection: connection.exec_driver_sql(_LEFT).scalars().all()) == []
    await asyncio.to_thread(migrate, service, dsn)
