"""Every second: is the route table in Redis the one in PostgreSQL?"""

import asyncio

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from ias.registry.core.route_table import InvalidRouteTableError, RouteTables

log = structlog.get_logger("ias.registry")


async def heal_routes(tables: RouteTables, interval_s: float) -> None:
    """Run until cancelled. Whatever is away is asked again at the next turn, and logged when it goes and comes back."""
    away: str | None = None
    is_first = True
    while True:
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
        await asyncio.sleep(interval_s)
