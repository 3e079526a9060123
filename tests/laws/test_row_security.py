"""Every table with an org in its rows is behind the second wall, also for the role that owns it."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from contracts.generate import discover_services

from ias.kit.migrations import migrate

_UNWALLED = """
    SELECT c.relname FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid))
"""


@pytest.mark.parametrize("service", discover_services())
async def test_every_table_with_an_org_has_forced_row_security(
    service: str, make_database: Callable[[str], str]
) -> None:
    dsn = make_database(f"ias_{service}")
    await asyncio.to_thread(migrate, service, dsn)
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        unwalled = [row["relname"] for row in await connection.fetch(_UNWALLED)]
    finally:
        await connection.close()
    assert unwalled == [], "its migration needs ias.kit.row_security.build_wall"
