"""Keeps Redis told which tokens are no longer good."""

import asyncio

import structlog

from ias.identity.core.redis_records import AWAY
from ias.identity.core.session_revocations import SessionRevocations
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.session_revocations")


async def keep_told(revocations: SessionRevocations, stop: asyncio.Event, *, interval_s: float) -> None:
    """Tell Redis again and again, until told to stop."""
    was_away = False
    while not stop.is_set():
        try:
            await revocations.push_recent()
            was_away = False
        except AWAY as error:
            if not was_away:
                log.warning("services are not told of ended sessions at the moment", error=type(error).__name__)
            was_away = True
        except Exception:  # the loop must outlive whatever was not foreseen
            if not was_away:
                log.exception("services are not told of ended sessions at the moment")
            was_away = True
        await wait_or_stop(stop, interval_s)
