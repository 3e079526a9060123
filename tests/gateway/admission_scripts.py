"""The admission and settlement scripts, called as the gateway calls them but at times of the test's choice."""

from dataclasses import dataclass

import msgspec
import redis

from ias.billing.store.reservations import CLOSE, LIST_EXPIRED
from ias.contracts import redis_keys
from ias.contracts.spending import Budget, RateLimit, window_id, window_parts
from ias.gateway.admission_plan import RollingParts, budget_arguments
from ias.gateway.script_calls import RESERVE, SETTLE
from tests.gateway.platform import ORG

LIFETIME_S = 60


@dataclass(frozen=True)
class Admitted:
    """The script's yes: what is left of the budgets and of each limit, with the ms until all of it is there."""

    left: int
    rates: list[tuple[int, int]]


@dataclass(frozen=True)
class Denied:
    """The script's no."""

    index: int
    left: int
    wait_ms: int
    rates: list[tuple[int, int]]


class Scripts:
    """Reserves and settles for one org; `now_ms` is the time that the scripts believe in."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client
        self.now_ms = 1_800_000_000_000

    def reserve(
        self,
        request: str,
        *,
        amount: int = 0,
        tokens: int = 0,
        budgets: tuple[Budget, ...] = (),
        limits: tuple[RateLimit, ...] = (),
        time_to_live_s: int = 0,
        late_s: float = 0,
    ) -> Admitted | Denied:
        """`late_s`: how long ago the time in the request's id is."""
        now = self.now_ms / 1000 - late_s if self.now_ms else 0
        parts = [window_parts(budget.window, now, budget.time_zone) for budget in budgets]
        keys = [redis_keys.reservation(ORG, request), redis_keys.reservation_deadlines(ORG)]
        keys += [redis_keys.budget_counter(ORG, each.id, own[0].id) for each, own in zip(budgets, parts, strict=True)]
        keys += [redis_keys.rate_limit(ORG, limit.id) for limit in limits]
        rolling = RollingParts.find(ORG, budgets, parts)
        keys += rolling.keys
        settles = budgets or any(limit.metric in ("tokens_per_minute", "concurrency") for limit in limits)
        arguments: list[str | int] = [request, amount, tokens, LIFETIME_S, "{}"]
        arguments += [self.now_ms, len(budgets), "2" if rolling.keys else "1" if settles else "0"]
        for budget in budgets:
            arguments += [budget_arguments(budget, now)[0], time_to_live_s]
        for limit in limits:
            arguments += [limit.metric, limit.limit]
        arguments += rolling.arguments
        reply = self._redis.eval(RESERVE.source, len(keys), *keys, *arguments)
        head = 2 if reply[0] else 4
        rates = list(zip(reply[head::2], reply[head + 1 :: 2], strict=True))
        return Admitted(reply[1], rates) if reply[0] else Denied(*reply[1:4], rates)

    def settle(self, request: str, *, cost: int = 0, tokens: int = 0) -> bool:
        keys = (redis_keys.reservation(ORG, request), redis_keys.reservation_deadlines(ORG))
        return bool(self._redis.eval(SETTLE.source, len(keys), *keys, request, cost, tokens, self.now_ms))

    def sweep(self) -> int:
        """What billing does with reservations whose deadline has passed, when it has booked all that they held."""
        prefix, deadlines = redis_keys.reservation(ORG, ""), redis_keys.reservation_deadlines(ORG)
        expired = self._redis.eval(LIST_EXPIRED, 1, deadlines, prefix, 1000, self.now_ms // 1000)
        for request_id, amount, _ in expired:
            self._redis.eval(CLOSE, 2, prefix + request_id.decode(), deadlines, request_id, 86_400, amount)
        return len(expired)

    def counter(self, budget: Budget) -> tuple[int, int]:
        """Settled and reserved."""
        settled, reserved = self._redis.hmget(self.counter_key(budget), ["settled", "reserved"])
        return int(settled or 0), int(reserved or 0)

    def counter_key(self, budget: Budget) -> str:
        return redis_keys.budget_counter(ORG, budget.id, window_id(budget.window, self.now_ms / 1000, budget.time_zone))

    def leases(self, limit: RateLimit) -> int:
        return int(self._redis.zcard(redis_keys.rate_limit(ORG, limit.id)))

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


def raised(limit: RateLimit, to: int) -> RateLimit:
    """The limit after an admin has changed it."""
    return msgspec.structs.replace(limit, limit=to)
