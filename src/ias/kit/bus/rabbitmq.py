"""RabbitMQ: a durable fanout exchange per topic, a quorum queue per group, publisher confirms, a dead-letter queue per group.

A publisher declares the queues of every known group too, so that nothing is lost that was published before a group's first
consumer started. Full queues refuse (`reject-publish`), which reaches the publisher as a negative confirm.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import DeliveryError
from pamqp.common import FieldTable

from ias.contracts.events import TOPIC_GROUPS
from ias.kit.bus.port import (
    CONNECT_TIMEOUT_S,
    PUBLISH_TIMEOUT_S,
    QUEUE_LENGTH_MAX,
    BusFullError,
    DeadLetter,
    Handler,
    StoppedError,
    backoff_s,
    handle_with_patience,
    log,
)
from ias.kit.pauses import wait_or_stop

_PREFETCH = 4
_REASON = "x-ias-reason"
_KEPT_FOR_GOOD: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
"""Since release 4.0 RabbitMQ drops what was delivered 20 times, unless it is told otherwise (its release notes, "default redelivery
limit"). A consumer that is killed twenty times must not lose a usage record, nor must looking at dead letters."""


class RabbitPublisher:
    """Publishes with confirms over one connection, opened on first use and again after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None
        self._exchanges: dict[str, AbstractExchange] = {}
        self._lock = asyncio.Lock()

    async def publish(self, topic: str, body: bytes, *, message_id: str) -> None:
        """See `Publisher.publish`.

        Raises:
            BusFullError: a group's queue is at its bound.
            OSError, aiormq's or aio-pika's exceptions, TimeoutError: the broker may not have the message.
        """
        message = aio_pika.Message(
            body,
            message_id=message_id,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                exchange = await self._exchange(topic)
                await exchange.publish(message, routing_key="")
        except DeliveryError as error:
            raise BusFullError(topic) from error
        except BaseException:  # cancelled or broken, a channel in doubt is not used again
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection; the next publish opens another."""
        connection, self._connection = self._connection, None
        self._exchanges.clear()
        if connection is not None:
            # Closing a broken connection may fail in any way; it is gone either way.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), CONNECT_TIMEOUT_S)

    async def _exchange(self, topic: str) -> AbstractExchange:
        async with self._lock:
            if self._connection is None or self._connection.is_closed:
                self._exchanges.clear()
                self._connection = await aio_pika.connect(self._url, timeout=CONNECT_TIMEOUT_S)
            if topic not in self._exchanges:
                channel = await self._connection.channel(publisher_confirms=True)
                exchange = await _declare_exchange(channel, topic)
                for group in TOPIC_GROUPS.get(topic, ()):
                    await _declare_queue(channel, exchange, topic, group)
                self._exchanges[topic] = exchange
            return self._exchanges[topic]


async def consume_rabbitmq(url: str, topic: str, group: str, handler: Handler, stop: asyncio.Event) -> None:
    """See `bus.consume`."""
    attempt = 0
    while not stop.is_set():
        try:
            async with _open_channel(url) as channel:
                await channel.set_qos(prefetch_count=_PREFETCH)
                exchange = await _declare_exchange(channel, topic)
                queue = await _declare_queue(channel, exchange, topic, group)
                attempt = 0
                async for message in _messages(queue, stop):
                    reason = await handle_with_patience(handler, message.body, stop)
                    if reason is not None:
                        await _set_aside(channel, message, _dead_letter_name(topic, group), reason)
                    await message.ack()
        except StoppedError:
            return
        except Exception as error:  # noqa: BLE001  # whatever broke the connection, it is opened again
            log.warning("bus connection lost", topic=topic, group=group, error=type(error).__name__)
            await wait_or_stop(stop, backoff_s(attempt))
            attempt += 1


async def count_waiting_rabbitmq(url: str, topic: str, group: str) -> int:
    """See `bus.count_waiting`."""
    async with _open_channel(url) as channel:
        exchange = await _declare_exchange(channel, topic)
        queue = await _declare_queue(channel, exchange, topic, group)
        return queue.declaration_result.message_count or 0


class RabbitDeadLetters:
    """See `DeadLetters`. What was fetched and not acknowledged goes back to its place, at the latest when the channel closes."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, group_queue_name: str) -> None:
        self._channel = channel
        self._queue = queue
        self._group_queue_name = group_queue_name

    async def count(self) -> int:
        """See `DeadLetters`."""
        return self._queue.declaration_result.message_count or 0

    async def read(self, limit: int) -> AsyncGenerator[DeadLetter]:
        """See `DeadLetters`."""
        fetched = [message async for message in self._fetch(limit)]
        for message in fetched:
            await message.nack(requeue=True)
        for message in fetched:
            yield _dead_letter(message)

    async def replay(self, limit: int) -> int:
        """See `DeadLetters`."""
        replayed = 0
        async for message in self._fetch(limit):
            again = aio_pika.Message(
                message.body,
                message_id=message.message_id,
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            try:
                await self._channel.default_exchange.publish(
                    again, routing_key=self._group_queue_name, timeout=PUBLISH_TIMEOUT_S
                )
            except DeliveryError as error:
                raise BusFullError(self._group_queue_name) from error
            await message.ack()
            replayed += 1
        return replayed

    async def remove(self, limit: int, keep: Callable[[DeadLetter], None]) -> int:
        """See `DeadLetters`."""
        removed = 0
        async for message in self._fetch(limit):
            keep(_dead_letter(message))
            await message.ack()
            removed += 1
        return removed

    async def _fetch(self, limit: int) -> AsyncGenerator[AbstractIncomingMessage]:
        """At most as many as there were at the start: a message that is set aside again is not fetched twice."""
        for _ in range(min(limit, await self.count())):
            message = await self._queue.get(fail=False, timeout=CONNECT_TIMEOUT_S)
            if message is None:
                return
            yield message


@contextlib.asynccontextmanager
async def open_rabbitmq_dead_letters(url: str, topic: str, group: str) -> AsyncIterator[RabbitDeadLetters]:
    """See `bus.open_dead_letters`."""
    async with _open_channel(url) as channel:
        exchange = await _declare_exchange(channel, topic)
        queue = await _declare_queue(channel, exchange, topic, group)
        dead = await _declare_dead_letter_queue(channel, topic, group)
        yield RabbitDeadLetters(channel, dead, queue.name)


def _dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    return DeadLetter(message.message_id or "", str(message.headers.get(_REASON, "")), message.body)


async def _set_aside(
    channel: AbstractChannel, message: AbstractIncomingMessage, dead_letter_queue: str, reason: str
) -> None:
    log.error("message set aside", queue=dead_letter_queue, message_id=message.message_id, reason=reason)
    dead = aio_pika.Message(
        message.body,
        message_id=message.message_id,
        headers={_REASON: reason[:500]},
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await channel.default_exchange.publish(dead, routing_key=dead_letter_queue, timeout=PUBLISH_TIMEOUT_S)


async def _messages(queue: AbstractQueue, stop: asyncio.Event) -> AsyncIterator[AbstractIncomingMessage]:
    stopped = asyncio.create_task(stop.wait())
    try:
        async with queue.iterator() as iterator:
            while True:
                arriving = asyncio.ensure_future(anext(iterator))
                await asyncio.wait({arriving, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not arriving.done():
                    arriving.cancel()
                    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                        await arriving
                    return
                yield arriving.result()
                if stop.is_set():
                    return
    finally:
        stopped.cancel()


@contextlib.asynccontextmanager
async def _open_channel(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(url, timeout=CONNECT_TIMEOUT_S)
    try:
        yield await connection.channel(publisher_confirms=True)
    finally:
        # Closing a broken connection may fail in any way; it is gone either way.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(connection.close(), CONNECT_TIMEOUT_S)


async def _declare_exchange(channel: AbstractChannel, topic: str) -> AbstractExchange:
    return await channel.declare_exchange(
        f"ias.{topic}", aio_pika.ExchangeType.FANOUT, durable=True, timeout=CONNECT_TIMEOUT_S
    )


async def _declare_queue(channel: AbstractChannel, exchange: AbstractExchange, topic: str, group: str) -> AbstractQueue:
    queue = await channel.declare_queue(
        f"ias.{topic}.{group}",
        durable=True,
        arguments=_KEPT_FOR_GOOD | {"x-max-length": QUEUE_LENGTH_MAX, "x-overflow": "reject-publish"},
        timeout=CONNECT_TIMEOUT_S,
    )
    await queue.bind(exchange, timeout=CONNECT_TIMEOUT_S)
    await _declare_dead_letter_queue(channel, topic, group)
    return queue


async def _declare_dead_letter_queue(channel: AbstractChannel, topic: str, group: str) -> AbstractQueue:
    return await channel.declare_queue(
        _dead_letter_name(topic, group),
        durable=True,
        arguments=_KEPT_FOR_GOOD,
        timeout=CONNECT_TIMEOUT_S,
    )


def _dead_letter_name(topic: str, group: str) -> str:
    return f"ias.{topic}.{group}.dead"
