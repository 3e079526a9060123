"""Redis Streams: one stream per topic, one consumer group per listener, a dead-letter stream per group.

A message that a consumer took and did not acknowledge (it was killed, say) is claimed by another after `_CLAIM_IDLE_MS`. What
every group has acknowledged is trimmed away. Redis keeps what it has acknowledged only as safely as its `appendonly` setting.
"""

import asyncio
import os
import socket
import uuid

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ias.contracts.events import TOPIC_GROUPS
from ias.kit.bus.port import (
    CONNECT_TIMEOUT_S,
    PUBLISH_TIMEOUT_S,
    QUEUE_LENGTH_MAX,
    BusFullError,
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

_XADD_BOUNDED = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return false end
return redis.call('XADD', KEYS[1], '*', 'id', ARGV[2], 'body', ARGV[3])
"""


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
