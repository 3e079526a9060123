"""What a gateway that knows a budget does to Redis, by its own scripts."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.events import UsageRecord
from ias.contracts.spending import ReservationClaim, window_id
from ias.gateway.script_calls import RESERVE, RESTORE, SETTLE


class Gateway:
    """Reserves and settles for one request, whose record it would publish."""

    def __init__(self, redis: Redis, org_id: str, budget: dict[str, Any], record: UsageRecord) -> None:
        self._redis = redis
        self._budget = budget
        self.record = record
        window = window_id(budget["window"], datetime.now(UTC).timestamp())
        self._reservation = redis_keys.reservation(org_id, record.request_id)
        self._deadlines = redis_keys.reservation_deadlines(org_id)
        self._counter = redis_keys.budget_counter(org_id, budget["id"], window)

    def _claim(self) -> bytes:
        return msgspec.json.encode(
            ReservationClaim(
                project_id=self.record.project_id,
                api_key_id=self.record.api_key_id,
                user_id=self.record.user_id,
                service_account_id=self.record.service_account_id,
                model=self.record.model,
                budgets=(self._budget["id"],),
            )
        )

    async def reserve(self, amount_nano_usd: int, *, lifetime_s: int = 60) -> None:
        keys = [self._reservation, self._deadlines, self._counter]
        arguments: list[Any] = [self.record.request_id, amount_nano_usd, 0, lifetime_s, self._claim()]
        arguments += ["", 1, "1", 10**12, 86_400]
        reply = await self._redis.eval(RESERVE.source, len(keys), *keys, *arguments)
        assert reply[0] == 1

    async def restore(self, amount_nano_usd: int) -> int:
        """Hold it again in a Redis that lost its data."""
        keys = [self._reservation, self._deadlines, self._counter]
        arguments: list[Any] = [self.record.request_id, amount_nano_usd, 60, self._claim(), 86_400]
        return int(await self._redis.eval(RESTORE.source, len(keys), *keys, *arguments))

    async def expire(self) -> None:
        """Its time is over."""
        await self._redis.zadd(self._deadlines, {self.record.request_id: 1}, xx=True)

    async def settle(self, cost_nano_usd: int) -> int:
        keys = [self._reservation, self._deadlines]
        return int(await self._redis.eval(SETTLE.source, 2, *keys, self.record.request_id, cost_nano_usd, 0, ""))
