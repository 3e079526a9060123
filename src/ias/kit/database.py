"""PostgreSQL for a management service: one pool, and transactions that commit as a whole or not at all.

Each reaches the rows of the orgs that `kit.row_security` says, and no others.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from ias.kit.row_security import build_reach
from ias.kit.settings import ServiceSettings
from ias.kit.writes import find_write


class Database:
    """The one way a service reaches its database."""

    def __init__(self, url: str, settings: ServiceSettings, *, application_name: str) -> None:
        self._engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_timeout=settings.database_timeout_s,
            hide_parameters=True,  # an exception's text ends in logs; the values of a statement must not
            connect_args={
                "connection_class": _ReachingConnection,
                "timeout": settings.database_timeout_s,
                "command_timeout": settings.database_timeout_s,
                "server_settings": {"application_name": application_name, "timezone": "UTC"},
            },
        )

        event.listen(self._engine.sync_engine, "checkout", _replace_closed)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed when the block ends, rolled back when it raises. Within a management write, a part of it.

        Raises what `Write.join` raises.
        """
        write = find_write()
        if write is not None and write.takes_transactions:
            async with write.join(self._engine.connect) as connection:
                yield connection
        else:
            async with self._engine.begin() as connection:
                yield connection

    async def ping(self) -> None:
        """Return when the database answers; raise what the driver raises when it does not."""
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


class _ReachingConnection(asyncpg.Connection):
    """Says which orgs a transaction reaches in the statement that begins it: one round trip, and none can be without."""

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """See `asyncpg.Connection.execute`, by which asyncpg's own `transaction()` begins one."""
        if query.startswith("BEGIN"):
            query = f"{query} {build_reach()};"
        status: str = await super().execute(query, *args, **options)
        return status


def _replace_closed(_: object, record: ConnectionPoolEntry, __: object) -> None:
    """Let the pool open another connection in place of one that was closed while nobody used it.

    The driver knows: a server that stops or ends a connection says so. SQLAlchemy's own `pool_pre_ping` asks each time, three
    round trips for each transaction (measured for one with a single query: a fifth of its CPU and three tenths of its time). What
    it would find beyond this, a server that vanished without a word, ends in the deadline of a statement either way.
    """
    connection = record.driver_connection
    if connection is None or connection.is_closed():
        raise DisconnectionError
