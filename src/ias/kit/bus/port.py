"""What the bus's adapters have in common: the port itself, and the patience with which a message is handled."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a group set aside, and why."""

    message_id: str
    reason: str
    body: bytes


class DeadLetters(Protocol):
    """What one group of a topic set aside, oldest first."""

    async def count(self) -> int:
        """How many there are."""

    def read(self, limit: int) -> AsyncGenerator[DeadLetter]:
        """The oldest ones. They stay where they are."""

    async def replay(self, limit: int) -> int:
        """Give the oldest ones to their group again; how many those were.

        A message leaves the dead letters only after the group's queue has it. Who is interrupted in between leaves it in both,
        which is booked once all the same.

        Raises:
            BusFullError: the group's queue is at its bound; what was moved before stays moved.
        """

    async def remove(self, limit: int, keep: Callable[[DeadLetter], None]) -> int:
        """Hand the oldest ones to `keep`, and drop each when that has returned; how many those were."""


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
