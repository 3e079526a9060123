"""Keeps Redis told of what `core.redis_records` could not push at once, and of everything after Redis lost it."""

import asyncio

import structlog

from ias.identity.core.redis_records import AWAY, RedisRecords

log = structlog.get_logger("ias.identity.redis_records")


async def keep_pushed(records: RedisRecords, *, interval_s: float) -> None:
    """Push what is pending, again and again, until cancelled."""
    was_away = False
    while True:
        try:
            await records.restore_if_lost()
            await records.push_unpushed()
            was_away = False
        except AWAY as error:
            if not was_away:
                log.warning("gateways are not told of changes at the moment", error=type(error).__name__)
            was_away = True
        except Exception:  # the loop must outlive whatever was not foreseen
            log.exception("pushing records failed")
        await asyncio.sleep(interval_s)
