"""Tells alerts. Every replica does: a delivery is taken by one at a time."""

import asyncio

import structlog

from ias.billing.core.alert_deliveries import AlertDeliveries
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.billing")


async def keep_delivering(deliveries: AlertDeliveries, stop: asyncio.Event, *, interval_s: float) -> None:
    """Make what is due, again and again, until told to stop."""
    was_away = False
    while not stop.is_set():
        try:
            await deliveries.make_due()
            was_away = False
        except Exception as error:  # noqa: BLE001  # the database is away, whatever the driver calls it: deliveries wait
            if not was_away:
                log.warning("alerts are not told at the moment", error=type(error).__name__)
            was_away = True
        await wait_or_stop(stop, interval_s)
