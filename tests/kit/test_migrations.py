"""Migrations run once, whoever starts them at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import asyncpg

from ias.kit.migrations import migrate

SERVICE = "registry"  # any service with migrations will do


async def tables(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


def in_a_thread(dsn: str) -> None:
    """`migrate` runs an event loop of its own, as it does before a process has one."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(migrate, SERVICE, dsn).result(60)


async def test_migrating_what_is_migrated_changes_nothing(make_database: Callable[[str], str]) -> None:
    dsn = make_database("kit")
    in_a_thread(dsn)
    there = await tables(dsn)
    in_a_thread(dsn)
    assert await tables(dsn) == there


async def test_processes_that_start_together_migrate_one_after_the_other(make_database: Callable[[str], str]) -> None:
    dsn = make_database("kit")
    with ThreadPoolExecutor(4) as executor:
        for started in [executor.submit(migrate, SERVICE, dsn) for _ in range(4)]:
            started.result(60)
    assert await tables(dsn)
