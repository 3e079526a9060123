"""The migrations make exactly the tables that the queries are written against, and can be undone."""

import asyncio
from collections.abc import Callable

from sqlalchemy import Connection, inspect, text

from ias.analytics.store.tables import METADATA
from ias.kit.database import Database
from ias.kit.migrations import migrate


def describe(connection: Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """Name, type and nullability of every column, by table."""
    found = inspect(connection)
    return {
        table: {
            column["name"]: (column["type"].compile(connection.dialect), column["nullable"])
            for column in found.get_columns(table)
        }
        for table in METADATA.tables
    }


async def test_the_tables_are_those_of_the_code(database: Database) -> None:
    async with database.transaction() as connection:
        found = await connection.run_sync(describe)
        dialect = connection.dialect
    assert found == {
        name: {column.name: (column.type.compile(dialect), bool(column.nullable)) for column in table.columns}
        for name, table in METADATA.tables.items()
    }


async def test_going_back_leaves_nothing_behind(make_database: Callable[[str], str], database: Database) -> None:
    dsn = database._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    await asyncio.to_thread(migrate, "analytics", dsn, revision="base")
    async with database.transaction() as connection:
        left = await connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'alembic%'"
            )
        )
        assert left.scalars().all() == []
    await asyncio.to_thread(migrate, "analytics", dsn)
