"""Sends e-mails."""

import asyncio

import structlog

from ias.identity.core.mails import Mails
from ias.identity.core.redis_records import AWAY
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.mails")


async def keep_sent(mails: Mails, stop: asyncio.Event, *, interval_s: float) -> None:
    """Send what is due, again and again, until told to stop."""
    was_away = False
    while not stop.is_set():
        try:
            await mails.send_due()
            was_away = False
        except AWAY as error:
            if not was_away:
                log.warning("e-mails are not sent at the moment", error=type(error).__name__)
            was_away = True
        except Exception:  # the loop must outlive whatever was not foreseen
            log.exception("an e-mail could not be sent")
        await wait_or_stop(stop, interval_s)
