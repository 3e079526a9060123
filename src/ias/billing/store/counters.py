"""The spending counters in Redis, and the marker that says they are complete.

A counter is a hash. `settled` and `reserved` belong to the gateways. Billing adds, once, what the ledger knows of requests that
were admitted before the counter was set up, and notes it in fields of its own: `cut_ms`, the Unix milliseconds that part the
requests billing vouches for from those the gateways count themselves; `reason`, why the counter was set up; `from_ledger`, how much
of `settled` these requests are; and `adjusted`, how much of it corrections and credits are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from ias.contracts import redis_keys

_REBUILDING = "ias:counters:rebuilding"
_KNOWN_SINCE = "ias:counters:known_since"
_REBUILD_DEADLINE_MS = 600_000

_SET_UP = """
if redis.call('HEXISTS', KEYS[1], 'cut_ms') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'cut_ms', ARGV[1], 'reason', ARGV[4], 'from_ledger', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'settled', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'reserved', 0)
if ARGV[3] ~= '0' and redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
"""

_CORRECT = """
local now = redis.call('HMGET', KEYS[1], 'cut_ms', 'from_ledger')
if now[1] ~= ARGV[1] or now[2] ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], 'settled', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'from_ledger', ARGV[3])
return 1
"""

_ADJUST = """
local was = redis.call('HGET', KEYS[1], 'adjusted') or '0'
if was ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'settled', ARGV[2] - ARGV[1])
redis.call('HINCRBY', KEYS[1], 'reserved', 0)
redis.call('HSET', KEYS[1], 'adjusted', ARGV[2])
if ARGV[3] ~= '0' and redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
"""

_FINISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[2], 'NX')
redis.call('SET', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
return 1
"""


Reason = Literal["new_budget", "data_lost"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a counter's requests are parted. Requests are compared by the time in their id."""

    millis: int
    """Unix milliseconds."""
    reason: Reason
    """`new_budget`: gateways count the requests that they admitted knowing the budget. `data_lost`: those from the cut on."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter says, in nano-USD. `cut` is None when billing has no part in it."""

    settled: int
    reserved: int
    from_ledger: int
    adjusted: int
    cut: Cut | None


class CounterStore:
    """Reads and sets up counters. Errors of the client (`redis.RedisError`) are the caller's to handle."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._set_up = client.register_script(_SET_UP)
        self._correct = client.register_script(_CORRECT)
        self._adjust = client.register_script(_ADJUST)
        self._finish = client.register_script(_FINISH)

    async def set_up(self, key: str, cut: Cut, *, from_ledger: int, expire_s: int) -> bool:
        """Add billing's part to a counter that has none yet; whether it was added. One that is new lasts so long; 0 is for ever."""
        return bool(await self._set_up(keys=[key], args=[cut.millis, from_ledger, expire_s, cut.reason]))

    async def correct(self, key: str, was: Counter, difference: int) -> bool:
        """Change billing's part of a counter, unless somebody else did since it was read."""
        if was.cut is None:
            return False
        return bool(await self._correct(keys=[key], args=[str(was.cut.millis), str(was.from_ledger), difference]))

    async def adjust(self, key: str, was: Counter, adjusted: int, *, expire_s: int) -> bool:
        """Change the part of corrections and credits, unless somebody else did since it was read."""
        return bool(await self._adjust(keys=[key], args=[was.adjusted, adjusted, expire_s]))

    async def read(self, keys: Sequence[str]) -> list[Counter]:
        """The counters; zeros for those that do not exist (yet)."""
        if not keys:
            return []
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, ["settled", "reserved", "from_ledger", "adjusted", "cut_ms", "reason"])
            answers = await pipeline.execute()
        return [
            Counter(
                settled=int(settled or 0),
                reserved=int(reserved or 0),
                from_ledger=int(from_ledger or 0),
                adjusted=int(adjusted or 0),
                cut=Cut(int(cut_ms), "new_budget" if reason == b"new_budget" else "data_lost") if cut_ms else None,
            )
            for settled, reserved, from_ledger, adjusted, cut_ms, reason in answers
        ]

    async def add(self, key: str, nano_usd: int) -> None:
        """Add to what was spent: for repairs."""
        await self._client.hincrby(key, "settled", nano_usd)

    async def expire(self, key: str, after_s: int) -> None:
        """Let a counter go that nobody needs any more."""
        await self._client.expire(key, after_s)

    async def are_ready(self) -> bool:
        """Whether the marker is there: gateways may admit."""
        return bool(await self._client.exists(redis_keys.COUNTERS_READY))

    async def were_ever_ready(self) -> bool:
        """Whether this Redis still holds counters that were once complete: then its data was not lost."""
        return bool(await self._client.exists(_KNOWN_SINCE))

    async def count_unpublished(self, since_ms: int) -> int:
        """How many gateway workers have said since a Unix time that usage waits in their spools."""
        return int(await self._client.zcount(redis_keys.UNPUBLISHED, since_ms, "+inf"))

    async def begin_rebuild(self, token: str) -> None:
        """Leave a token; when Redis loses its data once more during the rebuild, the token is lost too."""
        await self._client.set(_REBUILDING, token, px=_REBUILD_DEADLINE_MS)

    async def finish_rebuild(self, token: str, now_ms: int) -> bool:
        """Set the marker, unless the token is gone; whether it was set."""
        keys = [_REBUILDING, redis_keys.COUNTERS_READY, _KNOWN_SINCE]
        await self._client.delete(redis_keys.UNPUBLISHED)
        return bool(await self._finish(keys=keys, args=[token, now_ms]))
