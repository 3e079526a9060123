"""The prober: in every registry process, at work in the one that holds the lease."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from ias.kit.database import Database
from ias.kit.pauses import wait_or_stop
from ias.registry.core.health_watch import HealthWatch
from ias.registry.core.prober_lease import ProberLease
from ias.registry.store.backend_transitions import insert_transitions
from ias.registry.store.engine_tokens import insert_readings

log = structlog.get_logger("ias.registry")

_CANDIDATE_S = 1.0
"""How often a process that does not probe asks whether it shall."""
_WRITE_S = 0.5
_BATCH_MAX = 500
_STOP_TIMEOUT_S = 5.0


@asynccontextmanager
async def probing(watch: HealthWatch, lease: ProberLease, database: Database) -> AsyncIterator[None]:
    """Probe, whenever it is this process' turn, for as long as the block runs."""
    stop = asyncio.Event()
    running = {
        asyncio.create_task(_probe_until(stop, watch, lease), name="registry prober"),
        asyncio.create_task(_write_until(stop, watch, database), name="registry transitions"),
    }
    try:
        yield
    finally:
        stop.set()  # not cancelled first: the lease is to be released, and what was found to be written
        _, late = await asyncio.wait(running, timeout=_STOP_TIMEOUT_S)
        for task in late:
            task.cancel()


async def _probe_until(stop: asyncio.Event, watch: HealthWatch, lease: ProberLease) -> None:
    away: str | None = None
    while not stop.is_set():
        failure: str | None = None
        try:
            if await lease.renew():
                log.info("this process probes the backends")
                await watch.run(stop)
                log.info("this process no longer probes the backends")
        except (RedisError, OSError) as error:
            failure = type(error).__name__
        except Exception as error:  # a fault in here must not leave all backends unwatched for good
            log.exception("the prober failed")
            failure = type(error).__name__
        if failure != away:
            log.warning("the prober cannot work" if failure else "the prober can work again", error=failure)
            away = failure
        await wait_or_stop(stop, _CANDIDATE_S)
    with suppress(RedisError, OSError):
        await lease.release()


async def _write_until(stop: asyncio.Event, watch: HealthWatch, database: Database) -> None:
    """Put transitions and readings into PostgreSQL; while that is away they wait."""
    is_away = False
    while True:
        is_last = stop.is_set()
        try:
            await _write(watch, database)
            is_away = False
        except (SQLAlchemyError, OSError) as error:
            if not is_away:
                log.warning("what backends did waits to be written", error=type(error).__name__)
            is_away = True
        if is_last:
            return
        await wait_or_stop(stop, _WRITE_S)


async def _write(watch: HealthWatch, database: Database) -> None:
    readings = watch.token_readings.waiting
    while readings:
        some = list(readings)[:_BATCH_MAX]
        async with database.transaction() as connection:
            await insert_readings(connection, some)
        while readings and readings[0] in some:
            readings.popleft()
    while watch.transitions:
        batch = list(watch.transitions)[:_BATCH_MAX]
        async with database.transaction() as connection:
            await insert_transitions(connection, batch)
        written = {one.id for one in batch}
        while watch.transitions and watch.transitions[0].id in written:
            watch.transitions.popleft()
