"""Every second: is the route table in Redis the one in PostgreSQL?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from ias.registry.core.route_table import InvalidRouteTableError, RouteTables

log = structlog.get_logger("ias.registry")

_STOP_TIMEOUT_S = 5.0


@asynccontextmanager
async def healing_routes(tables: RouteTables, interval_s: float) -> AsyncIterator[None]:
    """Heal for as long as the block runs."""
    stop = asyncio.Event()
    healing = asyncio.create_task(_heal_until(stop, tables, interval_s))
    try:
        yield
    finally:
        stop.set()  # not cancelled first: `asyncio.wait_for`, which the Redis client uses, may swallow that (Python 3.11)
        await asyncio.wait({healing}, timeout=_STOP_TIMEOUT_S)
        healing.cancel()


async def _heal_until(stop: asyncio.Event, tables: RouteTables, interval_s: float) -> None:
    """Whatever is away is asked again at the next turn, and logged when it goes and comes back."""
    away: str | None = None
    is_first = True
    while not stop.is_set():
        failure: str | None = None
        try:
            if is_first:
                await tables.push()  # also when the versions agree: the egress policy may be another than before
                is_first = False
            if await tables.heal():
                log.info("the route table was pushed again")
        except (RedisError, SQLAlchemyError, OSError) as error:
            failure = type(error).__name__
        except InvalidRouteTableError as error:
            failure = str(error)
        if failure != away:
            log.warning("the route table cannot be kept up to date" if failure else "it can again", error=failure)
            away = failure
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await stop.wait()
