"""Redis Streams: one stream per topic, one consumer group per listener, a dead-letter stream per group.

A message that a consumer took and did not acknowledge (it was killed, say) is claimed by another after `_CLAIM_IDLE_MS`. What
every group has acknowledged is trimmed away. Redis keeps what it has acknowledged only as safely as its `appendonly` setting.
"""

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

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
from ias.kit.redis_connection import redis_from_url

_READ_COUNT = 4
_BLOCK_MS = 1_000
_CLAIM_IDLE_MS = 15_000
_UPKEEP_EVERY_S = 5.0
_DEAD_LETTERS_MAX = 100_000
_CONSUMER_FORGOTTEN_MS = 3_600_000
_COUNTED_MAX = 100

_XADD_BOUNDED = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return false end
return redis.call('XADD', KEYS[1], '*', 'id', ARGV[2], 'body', ARGV[3])
"""

_REPLAY = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return false end
if redis.call('XDEL', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', 'id', ARGV[3], 'body', ARGV[4])
return 1
"""
_DEAD_LETTERS_AT_ONCE = 100


def stream_name(topic: str) -> str:
    """The key of a topic's stream."""
    return f"ias:bus:{topic}"


def dead_letter_stream_name(topic: str, group: str) -> str:
    """The key of the stream that holds what a group set aside."""
    return f"ias:bus:{topic}:{group}:dead"


class RedisPublisher:
    """Publishes with XADD. Redis' answer is the confirm."""

    def __init__(self, url: str) -> None:
        self._client = redis_from_url(url, socket_timeout=PUBLISH_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S)
        self._add = self._client.register_script(_XADD_BOUNDED)

    async def publish(self, topic: str, body: bytes, *, message_id: str) -> None:
        """See `Publisher.publish`.

        Raises:
            BusFullError: the stream is at its bound.
            RedisError: Redis may not have the message.
        """
        added = await self._add(keys=[stream_name(topic)], args=[QUEUE_LENGTH_MAX, message_id, body])
        if added is None:
            raise BusFullError(topic)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def consume_redis(url: str, topic: str, group: str, handler: Handler, stop: asyncio.Event) -> None:
    """See `bus.consume`."""
    timeout_s = _BLOCK_MS / 1000 + CONNECT_TIMEOUT_S
    client = redis_from_url(url, socket_timeout=timeout_s, socket_connect_timeout=CONNECT_TIMEOUT_S)
    try:
        await _GroupConsumer(client, topic, group, handler, stop).run()
    finally:
        await client.aclose()


async def count_waiting_redis(url: str, topic: str, group: str) -> int:
    """See `bus.count_waiting`. What was taken and not acknowledged counts; of the rest at most `_COUNTED_MAX`."""
    client = redis_from_url(url, socket_timeout=PUBLISH_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S)
    try:
        if not await client.exists(stream_name(topic)):
            return 0
        for known in await client.xinfo_groups(stream_name(topic)):
            if known["name"] == group.encode():
                after = b"(" + known["last-delivered-id"]
                rest: Any = await client.xrange(stream_name(topic), min=after, count=_COUNTED_MAX)
                return int(known["pending"]) + len(rest)
        return int(await client.xlen(stream_name(topic)))
    finally:
        await client.aclose()


class RedisDeadLetters:
    """See `DeadLetters`. The groups of a topic share its stream, so the others meet what is replayed again, and know it."""

    def __init__(self, client: Redis, topic: str, group: str) -> None:
        self._client = client
        self._stream = stream_name(topic)
        self._dead = dead_letter_stream_name(topic, group)
        self._replay = client.register_script(_REPLAY)

    async def count(self) -> int:
        """See `DeadLetters`."""
        return int(await self._client.xlen(self._dead))

    async def read(self, limit: int) -> AsyncGenerator[DeadLetter]:
        """See `DeadLetters`."""
        async for _, letter in self._fetch(limit):
            yield letter

    async def replay(self, limit: int) -> int:
        """See `DeadLetters`."""
        replayed = 0
        async for entry_id, letter in self._fetch(limit):
            moved = await self._replay(
                keys=[self._stream, self._dead], args=[QUEUE_LENGTH_MAX, entry_id, letter.message_id, letter.body]
            )
            if moved is None:
                raise BusFullError(self._stream)
            replayed += moved
        return replayed

    async def remove(self, limit: int, keep: Callable[[DeadLetter], None]) -> int:
        """See `DeadLetters`."""
        removed = 0
        async for entry_id, letter in self._fetch(limit):
            keep(letter)
            removed += await self._client.xdel(self._dead, entry_id)
        return removed

    async def _fetch(self, limit: int) -> AsyncGenerator[tuple[bytes, DeadLetter]]:
        """Up to the last one that was there at the start: a message that is set aside again is not fetched twice."""
        newest: Any = await self._client.xrevrange(self._dead, count=1)
        after, left = b"-", limit
        while newest and left > 0:
            batch: Any = await self._client.xrange(
                self._dead, min=after, max=newest[0][0], count=min(left, _DEAD_LETTERS_AT_ONCE)
            )
            for entry_id, fields in batch:
                yield entry_id, DeadLetter(fields[b"id"].decode(), fields[b"reason"].decode(), fields[b"body"])
            if not batch:
                return
            after, left = b"(" + batch[-1][0], left - len(batch)


@contextlib.asynccontextmanager
async def open_redis_dead_letters(url: str, topic: str, group: str) -> AsyncIterator[RedisDeadLetters]:
    """See `bus.open_dead_letters`."""
    client = redis_from_url(url, socket_timeout=PUBLISH_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S)
    try:
        await client.ping()
        yield RedisDeadLetters(client, topic, group)
    finally:
        await client.aclose()


class _GroupConsumer:
    def __init__(self, client: Redis, topic: str, group: str, handler: Handler, stop: asyncio.Event) -> None:
        self._client = client
        self._topic = topic
        self._stream = stream_name(topic)
        self._group = group
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._handler = handler
        self._stop = stop
        self._upkeep_at = 0.0

    async def run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                await self._ensure_groups()
                while not self._stop.is_set():
                    await self._read_once()
                    attempt = 0
            except StoppedError:
                return
            except (RedisError, OSError) as error:
                # NOGROUP after Redis lost its data ends up here as well: the groups are made again.
                log.warning("bus connection lost", topic=self._topic, group=self._group, error=type(error).__name__)
                await wait_or_stop(self._stop, backoff_s(attempt))
                attempt += 1

    async def _ensure_groups(self) -> None:
        for group in {self._group, *TOPIC_GROUPS.get(self._topic, ())}:
            try:
                await self._client.xgroup_create(self._stream, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _read_once(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._upkeep_at:
            self._upkeep_at = now + _UPKEEP_EVERY_S
            await self._take_over_abandoned()
            await self._trim()
        answer = await self._client.xreadgroup(
            self._group, self._name, {self._stream: ">"}, count=_READ_COUNT, block=_BLOCK_MS
        )
        for entries in _entries_of(answer):
            for entry_id, fields in entries:
                await self._settle(entry_id, fields)

    async def _settle(self, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        body = fields.get(b"body", b"")
        reason = await handle_with_patience(self._handler, body, self._stop)
        if reason is not None:
            message_id = fields.get(b"id", b"").decode()
            log.error("message set aside", topic=self._topic, group=self._group, message_id=message_id, reason=reason)
            await self._client.xadd(
                dead_letter_stream_name(self._topic, self._group),
                {"id": message_id, "body": body, "reason": reason[:500]},
                maxlen=_DEAD_LETTERS_MAX,
            )
        await self._client.xack(self._stream, self._group, entry_id)

    async def _take_over_abandoned(self) -> None:
        cursor = "0-0"
        for _ in range(100):
            answer = await self._client.xautoclaim(
                self._stream, self._group, self._name, min_idle_time=_CLAIM_IDLE_MS, start_id=cursor, count=_READ_COUNT
            )
            cursor = answer[0]
            for entry_id, fields in answer[1]:
                if fields is not None:
                    await self._settle(entry_id, fields)
            if cursor in (b"0-0", "0-0"):
                return

    async def _trim(self) -> None:
        """Drop what every group has acknowledged, and consumers that are long gone."""
        oldest_needed = []
        for group in await self._client.xinfo_groups(self._stream):
            pending = await self._client.xpending(self._stream, group["name"])
            oldest_needed.append(_entry_order(pending["min"] or group["last-delivered-id"]))
        if oldest_needed:
            millis, sequence = min(oldest_needed)
            await self._client.xtrim(self._stream, minid=f"{millis}-{sequence}", approximate=False)
        for consumer in await self._client.xinfo_consumers(self._stream, self._group):
            if consumer["pending"] == 0 and consumer["idle"] > _CONSUMER_FORGOTTEN_MS:
                await self._client.xgroup_delconsumer(self._stream, self._group, consumer["name"])


def _entries_of(answer: object) -> list[list[tuple[bytes, dict[bytes, bytes]]]]:
    """The entries of an XREADGROUP answer on one stream: RESP2 gives a list of pairs, RESP3 a map of nested lists."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [entries for nested in answer.values() for entries in nested]
    return [entries for _, entries in answer]  # type: ignore[attr-defined]  # redis-py types the answer as Any


def _entry_order(entry_id: bytes | str) -> tuple[int, int]:
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    millis, _, sequence = text.partition("-")
    return int(millis), int(sequence)
