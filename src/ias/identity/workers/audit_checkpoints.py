"""Signs where the audit log's chains end, now and then."""

import asyncio

import structlog

from ias.identity.core.audit_checkpoints import AuditCheckpoints
from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.identity.audit")


async def keep_signed(checkpoints: AuditCheckpoints, stop: asyncio.Event, *, interval_s: float) -> None:
    """Sign every chain that has grown, again and again, until told to stop."""
    while not stop.is_set():
        await wait_or_stop(stop, interval_s)
        try:
            while not stop.is_set() and await checkpoints.sign_grown():
                pass
        except Exception:  # the database may be away; the next round signs what this one did not
            log.exception("the ends of the audit log could not be signed")
