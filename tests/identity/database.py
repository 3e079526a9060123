"""Looking into identity's database, past the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, statement: str, *arguments: object) -> None:
    """Run one statement, on the rows of every org."""
    async with connected(url) as connection:
        await connection.execute("SET ias.orgs = '*'")
        await connection.execute(statement, *arguments)


async def fetch(url: str, query: str, *arguments: object) -> list[Any]:
    """The rows of one query, of every org."""
    async with connected(url) as connection:
        await connection.execute("SET ias.orgs = '*'")
        return list(await connection.fetch(query, *arguments))
