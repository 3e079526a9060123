"""Settlement of reservations in Redis, kept until Redis has taken it: a lost connection delays the books, never bends them."""

from collections import deque
from typing import Any, Final

import structlog

from ias.gateway.redis_connection import RedisAwayError, RedisConnection, ignore_reply
from ias.gateway.script_calls import SettleCall

_BACKLOG_MAX: Final = 200_000

log = structlog.get_logger("ias.gateway.settlements")


class Settlements:
    """Sends settlements and remembers those not yet acknowledged. The script makes repeating them harmless."""

    def __init__(self) -> None:
        self._calls: dict[str, SettleCall] = {}
        self._redis: RedisConnection | None = None
        self._backlog: deque[tuple[str, str, int, int]] = deque(maxlen=_BACKLOG_MAX)
        self._unguarded: dict[str, bytes] = {}
        """By request: the call that holds what was let through while Redis was away, until its settlement is acknowledged."""
        self.unacknowledged = 0

    def attach(self, redis: RedisConnection) -> None:
        """The connection that settlements are sent on."""
        self._redis = redis

    def settle(self, org_id: str, request_id: str, cost_nano_usd: int, tokens: int) -> None:
        """Replace a request's reservation by what it used (zeros release it), now or when Redis is back."""
        if self._redis is None:
            raise AssertionError("settling needs a connection")
        call = self._calls.get(org_id)
        if call is None:
            call = self._calls[org_id] = SettleCall(org_id)
        command = call.fill(request_id.encode(), cost_nano_usd, tokens)
        settlement = (org_id, request_id, cost_nano_usd, tokens)
        try:
            if self._unguarded and (hold := self._unguarded.get(request_id)) is not None:
                self._redis.call(hold, ignore_reply)
            self._redis.call(command, self._replied, settlement)
        except RedisAwayError:
            self._backlog.append(settlement)
            return
        self.unacknowledged += 1

    def _replied(self, settlement: tuple[str, str, int, int], reply: Any) -> None:
        self.unacknowledged -= 1
        if isinstance(reply, Exception):
            if not isinstance(reply, RedisAwayError):
                log.error("settlement_refused", request_id=settlement[1], error=str(reply))
                if "NOSCRIPT" in str(reply) and self._redis is not None:
                    self._redis.load_scripts()
            self._backlog.append(settlement)
        elif self._unguarded:
            self._unguarded.pop(settlement[1], None)

    def settle_unguarded(self, hold: bytes, org_id: str, request_id: str, cost_nano_usd: int, tokens: int) -> None:
        """The same for a request that was let through without a reservation: it is held first, then settled."""
        if len(self._unguarded) < _BACKLOG_MAX:
            self._unguarded[request_id] = hold
        self.settle(org_id, request_id, cost_nano_usd, tokens)

    def retry(self) -> None:
        """Send the backlog. Called when the connection is up, and now and then."""
        if self._redis is None or not self._redis.is_ready:
            return
        for _ in range(len(self._backlog)):
            self.settle(*self._backlog.popleft())

    @property
    def waiting(self) -> int:
        """Settlements that Redis has not acknowledged."""
        return len(self._backlog) + self.unacknowledged
