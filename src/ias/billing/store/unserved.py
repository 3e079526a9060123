"""Requests that were not served, as gateways leave them in Redis."""

from uuid import UUID

import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.unserved import REMEMBERED_MAX, UnservedRequest


class UnservedStore:
    """Finds them. `redis.RedisError` is the caller's to handle."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def find(self, org_id: UUID, request_id: str) -> UnservedRequest | None:
        """An org's request, while it is remembered."""
        for text in await self._redis.lrange(redis_keys.unserved(str(org_id)), 0, REMEMBERED_MAX - 1):
            one = _read(text)
            if one is not None and one.request_id == request_id:
                return one
        return None


def _read(text: bytes | str) -> UnservedRequest | None:
    try:
        return msgspec.json.decode(text, type=UnservedRequest)
    except msgspec.MsgspecError:  # of another release
        return None
