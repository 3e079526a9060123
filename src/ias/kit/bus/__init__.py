"""The event bus: a small port with two adapters, RabbitMQ in production and Redis Streams on one machine.

Both promise the same: `publish` returns when the broker has the message safely and raises when it may not have it; every group
of a topic gets every message at least once, also messages published before its first consumer ran; a message that cannot be
booked is set aside with a reason; queues are bounded, and a full one refuses what is published (which then waits in the
publisher's own spool).
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from ias.kit.bus.port import BusFullError, DeadLetter, DeadLetters, Handler, PoisonError, Publisher
from ias.kit.bus.rabbitmq import RabbitPublisher, consume_rabbitmq, count_waiting_rabbitmq, open_rabbitmq_dead_letters
from ias.kit.bus.redis_streams import RedisPublisher, consume_redis, count_waiting_redis, open_redis_dead_letters

__all__ = [
    "BusFullError",
    "DeadLetter",
    "DeadLetters",
    "Handler",
    "PoisonError",
    "Publisher",
    "consume",
    "count_waiting",
    "open_dead_letters",
    "open_publisher",
]


def open_publisher(bus_url: str) -> Publisher:
    """A publisher for `amqp(s)://…` or `redis(s)://…`. Connects on first use.

    Raises:
        ValueError: another scheme.
    """
    if _is_rabbitmq(bus_url):
        return RabbitPublisher(bus_url)
    return RedisPublisher(bus_url)


async def consume(bus_url: str, topic: str, group: str, handler: "Handler", stop: "asyncio.Event") -> None:
    """Hand every message of a topic to the handler, one at a time, until `stop` is set.

    The handler returns when the message is booked, raises `PoisonError` to set it aside, and is called again with the same
    message, with backoff, when it raises anything else (its database is away, say). Broker outages are waited out.
    """
    run = consume_rabbitmq if _is_rabbitmq(bus_url) else consume_redis
    await run(bus_url, topic, group, handler, stop)


async def count_waiting(bus_url: str, topic: str, group: str) -> int:
    """How many messages of a topic a group has not taken yet; those in its consumers' hands may be left out.

    Raises:
        OSError, RedisError, aiormq's exceptions, TimeoutError: the broker is away.
    """
    count = count_waiting_rabbitmq if _is_rabbitmq(bus_url) else count_waiting_redis
    return await count(bus_url, topic, group)


def open_dead_letters(bus_url: str, topic: str, group: str) -> AbstractAsyncContextManager[DeadLetters]:
    """What a group of a topic set aside.

    Raises on entering:
        OSError, RedisError, aiormq's exceptions, TimeoutError: the broker is away.
    """
    open_them = open_rabbitmq_dead_letters if _is_rabbitmq(bus_url) else open_redis_dead_letters
    return open_them(bus_url, topic, group)


def _is_rabbitmq(bus_url: str) -> bool:
    scheme = bus_url.partition("://")[0]
    if scheme not in ("amqp", "amqps", "redis", "rediss", "unix"):
        raise ValueError(f"IAS_BUS_URL has the scheme {scheme!r}; amqp, amqps, redis, rediss and unix are known")
    return scheme.startswith("amqp")
