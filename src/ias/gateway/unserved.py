"""Requests that were not served, told to Redis, where billing finds them when somebody asks why.

They gather and leave once a second, the newest of each org: however many a client sends, Redis keeps no more than so many.
"""

from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from ias.contracts import redis_keys
from ias.contracts.unserved import KEPT_S, REMEMBERED_MAX, UnservedRequest
from ias.gateway.access_log import asked_model
from ias.gateway.exchange import Exchange
from ias.gateway.record_lines import Timing
from ias.gateway.redis_connection import RedisAwayError, RedisConnection, ignore_reply, pack

_WAITING_MAX: Final = 20_000
"""Of all orgs together, in a second; what is above is not remembered."""


class UnservedRequests:
    """One worker's, on their way."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._encode = msgspec.json.Encoder().encode
        self._by_org: dict[str, deque[bytes]] = {}
        self._waiting = 0

    def note(self, exchange: Exchange, timing: Timing) -> None:
        """Remember a request, where it is known whose it was and it was to be served."""
        principal = exchange.principal
        if principal is None or exchange.status < 400 or not exchange.endpoint.is_inference:
            return
        if self._waiting >= _WAITING_MAX:
            return
        self._waiting += 1
        key, plan = principal.key, exchange.plan
        one = UnservedRequest(
            request_id=exchange.request_id,
            ended_at=timing.occurred_at,
            project_id=key.project_id,
            api_key_id=key.key_id,
            user_id=key.user_id,
            service_account_id=key.service_account_id,
            endpoint=exchange.endpoint.path,
            model=exchange.model or asked_model(exchange),
            status=exchange.status,
            outcome=exchange.outcome,
            code=exchange.error_code,
            denied_by=exchange.denied_by,
            reserved_nano_usd=exchange.reserved_nano_usd,
            remaining_nano_usd=exchange.remaining_nano_usd,
            budgets=() if plan is None else tuple(budget.id for budget in plan.budgets),
            rate_limits=() if plan is None else tuple(limit.id for limit in plan.limits),
            attempts=tuple(exchange.attempts),
        )
        self._by_org.setdefault(key.org_id, deque(maxlen=REMEMBERED_MAX)).append(self._encode(one))

    def send(self) -> None:
        """Tell Redis. What it does not hear, being away, is not remembered."""
        by_org, self._by_org, self._waiting = self._by_org, {}, 0
        with suppress(RedisAwayError):
            for org_id, newest in by_org.items():
                key = redis_keys.unserved(org_id)
                self._redis.call(pack("LPUSH", key, *newest), ignore_reply)
                self._redis.call(pack("LTRIM", key, 0, REMEMBERED_MAX - 1), ignore_reply)
                self._redis.call(pack("EXPIRE", key, KEPT_S), ignore_reply)
