"""Makes the next signing key when the one in use has done its time."""

import asyncio

import structlog

from ias.identity.core.signing_keys import SigningKeys
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.signing_keys")

_INTERVAL_S = 3600.0


async def keep_rotated(keys: SigningKeys, stop: asyncio.Event) -> None:
    """Look every hour, until told to stop."""
    await wait_or_stop(stop, _INTERVAL_S)
    while not stop.is_set():
        try:
            await keys.ensure()
        except Exception:  # the database may be away; the next hour is early enough
            log.exception("the signing keys could not be looked at")
        await wait_or_stop(stop, _INTERVAL_S)
