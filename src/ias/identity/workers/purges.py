"""Purges what was deleted long enough ago."""

import asyncio

import structlog

from ias.identity.core.purges import Purges
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.purges")


async def keep_purged(purges: Purges, stop: asyncio.Event, *, interval_s: float) -> None:
    """Look again and again, until told to stop."""
    while not stop.is_set():
        try:
            await purges.purge_expired()
        except Exception:  # the database may be away; the next round is early enough
            log.exception("what was deleted could not be purged")
        await wait_or_stop(stop, interval_s)
