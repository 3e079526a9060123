"""Keeps Redis told of what `core.redis_records` could not push at once, and of everything after Redis lost it."""

import asyncio

import structlog

from ias.identity.core.redis_records import AWAY, RedisRecords
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.redis_records")


async def keep_pushed(records: RedisRecords, stop: asyncio.Event, *, interval_s: float) -> None:
    """Push what is pending, again and again, until told to stop."""
    was_away = False
    while not stop.is_set():
        try:
            await records.restore_if_lost()
            await records.push_unpushed()
            was_away = False
        except AWAY as error:
            if not was_away:
                log.warning("gateways are not told of changes at the moment", error=type(error).__name__)
            was_away = True
        except Exception:  # the loop must outlive whatever was not foreseen
            if not was_away:
                log.exception("gateways are not told of changes at the moment")
            was_away = True
        await wait_or_stop(stop, interval_s)
