"""Documents that services push to Redis for gateways to read, and the rule that a newer one is never replaced by an older."""

from collections.abc import Mapping
from typing import cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ias.kit.redis_connection import redis_from_url

# The version is read from the stored JSON itself, so a document cannot disagree with the version it was accepted under.
# What is not such a document is replaced: nobody can read it anyway.
_PUT_IF_NEWER = """
local stored = redis.call('GET', KEYS[1])
if stored then
  local readable, document = pcall(cjson.decode, stored)
  local version = readable and type(document) == 'table' and document.version
  if type(version) == 'number' and version > tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


def open_redis(url: str, timeout_s: float) -> "Redis":
    """A client with a deadline on every operation and no hidden retries."""
    return redis_from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=20,
    )


class RedisDocuments:
    """Writes versioned documents. Errors of the client (`redis.RedisError`) are the caller's to handle."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._put_if_newer = client.register_script(_PUT_IF_NEWER)

    async def put(self, key: str, document: msgspec.Struct, *, version: int) -> bool:
        """Store the document unless a newer one is there; whether it was stored."""
        stored = await self._put_if_newer(keys=[key], args=[msgspec.json.encode(document), version])
        return bool(stored)

    async def put_all(self, documents: Mapping[str, msgspec.Struct], *, version_field: str = "version") -> None:
        """Store many documents in one round trip, each by the same rule."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for key, document in documents.items():
                version = cast("int", getattr(document, version_field))
                await self._put_if_newer(keys=[key], args=[msgspec.json.encode(document), version], client=pipeline)
            await pipeline.execute()
