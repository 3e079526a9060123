"""What the bus's adapters have in common: the port itself, and the patience with which a message is handled."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from ias.kit.pauses import wait_or_stop

log = structlog.get_logger("ias.bus")

PUBLISH_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
QUEUE_LENGTH_MAX = 200_000
"""Messages (batches) a queue holds at most before it refuses more."""

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 5.0

Handler = Callable[[bytes], Awaitable[None]]


class PoisonError(Exception):
    """This message can never be booked; set it aside with this reason and go on."""


class BusFullError(Exception):
    """The queue is at its bound; keep the message and try later."""


class StoppedError(Exception):
    """The consumer was told to stop while a message could not be handled; the message stays with the broker."""


class Publisher(Protocol):
    """Puts messages on the bus."""

    async def publish(self, topic: str, body: bytes, *, message_id: str) -> None:
        """Return once the broker has the message; raise within `PUBLISH_TIMEOUT_S` when it may not have it."""

    async def close(self) -> None:
        """Close the connection."""


def backoff_s(attempt: int) -> float:
    """How long to wait after the given failure (0 is the first): doubling, capped, with full jitter."""
    ceiling = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2.0 ** min(attempt, 16))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311  # jitter, not a secret


async def handle_with_patience(handler: Handler, body: bytes, stop: asyncio.Event) -> str | None:
    """Call the handler until the message is booked (None) or found to be poison (the reason).

    Raises:
        StoppedError: see there.
    """
    attempt = 0
    while True:
        try:
            await handler(body)
        except PoisonError as poison:
            return str(poison)
        except Exception as error:  # whatever kept it from being booked, the message must not be lost
            log.warning("message not handled yet", attempt=attempt, error=type(error).__name__, exc_info=attempt == 0)
        else:
            return None
        await wait_or_stop(stop, backoff_s(attempt))
        if stop.is_set():
            raise StoppedError
        attempt += 1
