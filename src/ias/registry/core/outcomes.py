"""What gateways saw of backends since the last time it was asked: counters in Redis, a hash for each ten seconds."""

import time
from typing import cast

from redis.asyncio import Redis

from ias.contracts import redis_keys

_BUCKET_S = 10

Outcomes = dict[str, tuple[int, int]]
"""Requests that succeeded and that failed, by backend id."""


class OutcomeReader:
    """Reads only what is new. The first time everything is old: whoever probed before has heeded it."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._seen: dict[int, dict[bytes, int]] | None = None

    async def read_new(self) -> Outcomes:
        """What came since the last call. Raises what the Redis client raises."""
        bucket = int(time.time()) // _BUCKET_S
        counts = {number: await self._read(number) for number in (bucket - 1, bucket)}
        seen, self._seen = self._seen, counts
        new: Outcomes = {}
        for number, fields in counts.items() if seen is not None else ():
            before = (seen or {}).get(number, {})
            for field, count in fields.items():
                _add(new, field, count - before.get(field, 0))
        return new

    async def _read(self, bucket: int) -> dict[bytes, int]:
        fields = cast(
            "dict[bytes, bytes]",
            await self._redis.hgetall(redis_keys.backend_outcomes(bucket)),
        )
        return {field: int(count) for field, count in fields.items() if count.isdigit()}


def _add(outcomes: Outcomes, field: bytes, count: int) -> None:
    backend_id, _, kind = field.decode("ascii", "replace").rpartition(":")
    if count <= 0 or kind not in ("succeeded", "failed"):
        return
    succeeded, failed = outcomes.get(backend_id, (0, 0))
    outcomes[backend_id] = (succeeded + count, failed) if kind == "succeeded" else (succeeded, failed + count)
