"""Which registry process probes: the one that holds a lease in Redis, for as long as it renews it.

What the prober publishes is stored by a script that looks at the lease first, so of two that both believe to hold it (one was
stopped for a while) only one is heard.
"""

import secrets

from redis.asyncio import Redis

from ias.contracts import redis_keys

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
_PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""


class ProberLease:
    """One process' hold on the lease. Raises what the Redis client raises."""

    def __init__(self, redis: "Redis", length_s: float) -> None:
        self._length_ms = int(length_s * 1000)
        self._token = secrets.token_hex(16)
        self._renew = redis.register_script(_RENEW)
        self._release = redis.register_script(_RELEASE)
        self._publish = redis.register_script(_PUBLISH)

    async def renew(self) -> bool:
        """Take or keep the lease; whether it is ours."""
        return bool(await self._renew(keys=[redis_keys.PROBER_LEASE], args=[self._token, self._length_ms]))

    async def release(self) -> None:
        """Let another process have it at once."""
        await self._release(keys=[redis_keys.PROBER_LEASE], args=[self._token])

    async def publish(self, document: bytes) -> bool:
        """Store what is known of the backends; False, and nothing is stored, when the lease is another's."""
        keys = [redis_keys.PROBER_LEASE, redis_keys.BACKEND_STATES]
        return bool(await self._publish(keys=keys, args=[self._token, document]))
