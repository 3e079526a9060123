"""Reservations in Redis whose deadline has passed: their gateway died before it could settle them.

Closing one replaces what it holds of budgets by what the ledger has of it. It stays for a day, marked `swept`, with the amount that
was counted: should the gateway settle it after all (it was only stopped, say), its script corrects the sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.spending import ReservationClaim

_KEPT_S = 86_400

LIST_EXPIRED = """
-- KEYS: 1 deadlines; ARGV: 1 prefix of reservations, 2 at most, 3 time in s ('' for Redis' own)
local now = ARGV[3] ~= '' and ARGV[3] or redis.call('TIME')[1]
local found = {}
for _, request_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local held = redis.call('HMGET', ARGV[1] .. request_id, 'amount', 'claim')
  found[#found + 1] = { request_id, held[1] or '', held[2] or '' }
end
return found
"""

CLOSE = """
-- KEYS: 1 reservation, 2 deadlines; ARGV: 1 request id, 2 seconds it is kept, 3 cost in nano-USD
-- Of a request that was admitted before Redis lost its data, the ledger's part of the counter has the cost.
local held = redis.call('HMGET', KEYS[1], 'amount', 'counters', 'swept', 'restored')
redis.call('ZREM', KEYS[2], ARGV[1])
if not held[1] or held[3] then return 0 end
local admitted_ms = held[4] and tonumber(string.sub(ARGV[1], 5, 16), 16)
for counter in string.gmatch(held[2], '[^\\n]+') do
  redis.call('HINCRBY', counter, 'reserved', '-' .. held[1])
  local cut = held[4] and redis.call('HMGET', counter, 'cut_ms', 'reason')
  local is_ledgers = cut and cut[2] == 'data_lost' and admitted_ms < tonumber(cut[1])
  if not is_ledgers then
    redis.call('HINCRBY', counter, 'settled', ARGV[3])
    redis.call('HDEL', KEYS[1], 'restored')
  end
end
redis.call('HSET', KEYS[1], 'swept', '1', 'amount', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class ExpiredReservation:
    """What a request held when its gateway died."""

    org_id: UUID
    request_id: str
    amount_nano_usd: int
    claim: ReservationClaim | None
    """None: nothing is known of it, for it was settled in this very moment."""


class ReservationStore:
    """Finds and closes expired reservations. `redis.RedisError` is the caller's to handle."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._list_expired = client.register_script(LIST_EXPIRED)
        self._close = client.register_script(CLOSE)

    async def list_expired(self, org_id: UUID, limit: int) -> list[ExpiredReservation]:
        """Some of an org's, the oldest first."""
        org = str(org_id)
        found = await self._list_expired(
            keys=[redis_keys.reservation_deadlines(org)], args=[redis_keys.reservation(org, ""), limit, ""]
        )
        return [
            ExpiredReservation(
                org_id=org_id,
                request_id=request_id.decode(),
                amount_nano_usd=int(amount or 0),
                claim=msgspec.json.decode(claim, type=ReservationClaim) if claim else None,
            )
            for request_id, amount, claim in found
        ]

    async def list_orgs_with_expired(self, org_ids: Sequence[UUID], now_s: int) -> list[UUID]:
        """Those of the orgs that have any at a Unix time, in one round trip."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for org_id in org_ids:
                pipeline.zcount(redis_keys.reservation_deadlines(str(org_id)), "-inf", now_s)
            counts = await pipeline.execute()
        return [org_id for org_id, count in zip(org_ids, counts, strict=True) if count]

    async def close(self, expired: ExpiredReservation, cost_nano_usd: int) -> bool:
        """Count a cost as spent in place of what it holds; whether that was still to be done."""
        org = str(expired.org_id)
        keys = [redis_keys.reservation(org, expired.request_id), redis_keys.reservation_deadlines(org)]
        return bool(await self._close(keys=keys, args=[expired.request_id, _KEPT_S, cost_nano_usd]))
