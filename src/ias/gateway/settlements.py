"""Settlement of reservations in Redis, kept until Redis has taken it: a lost connection delays the books, never bends them."""

from collections import deque
from functools import partial
from typing import Any

import structlog

from ias.contracts import redis_keys
from ias.gateway.redis_connection import RedisAwayError, RedisConnection, Script, pack

_BACKLOG_MAX = 200_000

log = structlog.get_logger("ias.gateway.settlements")


class Settlements:
    """Sends settlements and remembers those not yet acknowledged. The script makes repeating them harmless."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._redis: RedisConnection | None = None
        self._backlog: deque[tuple[str, str, int]] = deque(maxlen=_BACKLOG_MAX)
        self.unacknowledged = 0

    def attach(self, redis: RedisConnection) -> None:
        """The connection that settlements are sent on."""
        self._redis = redis

    def settle(self, org_id: str, request_id: str, cost_nano_usd: int) -> None:
        """Replace a request's reservation by what it cost (0 releases it), now or when Redis is back."""
        if self._redis is None:
            raise AssertionError("settling needs a connection")
        command = pack(
            *(
                "EVALSHA",
                self._script.sha,
                2,
                redis_keys.reservation(org_id, request_id),
                redis_keys.reservation_deadlines(org_id),
                request_id,
                cost_nano_usd,
            )
        )
        try:
            self._redis.call(command, partial(self._replied, (org_id, request_id, cost_nano_usd)))
        except RedisAwayError:
            self._backlog.append((org_id, request_id, cost_nano_usd))
            return
        self.unacknowledged += 1

    def _replied(self, settlement: tuple[str, str, int], reply: Any) -> None:
        self.unacknowledged -= 1
        if isinstance(reply, Exception):
            if not isinstance(reply, RedisAwayError):
                log.error("settlement_refused", request_id=settlement[1], error=str(reply))
            self._backlog.append(settlement)

    def retry(self) -> None:
        """Send the backlog. Called when the connection is up."""
        for _ in range(len(self._backlog)):
            self.settle(*self._backlog.popleft())

    @property
    def waiting(self) -> int:
        """Settlements that Redis has not acknowledged."""
        return len(self._backlog) + self.unacknowledged
