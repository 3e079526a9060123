"""Workers tell one another through Redis what orgs were given of a model and what is kept free, see `routing.given_work`."""

import time
from typing import Any

from ias.contracts import redis_keys
from ias.gateway.redis_connection import RedisConnection, ignore_reply, pack
from ias.gateway.routing.given_work import (
    ORGS_TOLD_MAX,
    WINDOW_S,
    WINDOWS,
    add_windows,
    join_kept,
    kept_windows_at,
    window_of,
    windows_at,
)
from ias.gateway.routing.model_router import ModelRouter

_KEPT_S = WINDOW_S * (WINDOWS + 2)


def exchange_given_work(redis: RedisConnection, router: ModelRouter) -> None:
    """Add what was given here since the last time and what is kept free, and hear all others'. Raises RedisAwayError."""
    unix_s, model_id = time.time(), router.route.model_id
    told = router.queue.tell(ORGS_TOLD_MAX)
    if told:
        key = redis_keys.given_work(model_id, window_of(unix_s))
        for org_id, work in told.items():
            redis.call(pack("HINCRBY", key, org_id, work), ignore_reply)
        redis.call(pack("EXPIRE", key, _KEPT_S), ignore_reply)
    kept_key = redis_keys.kept_backends(model_id, window_of(unix_s))
    redis.call(pack("SADD", kept_key, router.kept_needed), ignore_reply)
    redis.call(pack("EXPIRE", kept_key, _KEPT_S), ignore_reply)
    hearing = _Hearing(router, unix_s)
    for window in windows_at(unix_s):
        redis.call(pack("HGETALL", redis_keys.given_work(model_id, window)), hearing.take, window)
    for window in kept_windows_at(unix_s):
        redis.call(pack("SMEMBERS", redis_keys.kept_backends(model_id, window)), hearing.take_kept, window)


class _Hearing:
    """Replies on their way."""

    def __init__(self, router: ModelRouter, unix_s: float) -> None:
        self._router = router
        self._unix_s = unix_s
        self._windows: dict[int, dict[str, int]] = {}
        self._kept: dict[int, set[int]] = {}

    def take(self, window: int, reply: Any) -> None:
        """One window's; the last one is told to the router."""
        if not isinstance(reply, dict):
            return  # an error, or the connection was lost: what was heard before fades
        self._windows[window] = {org_id.decode(): int(work) for org_id, work in reply.items()}
        if len(self._windows) == WINDOWS:
            self._router.queue.hear(add_windows(self._windows, self._unix_s), time.monotonic())

    def take_kept(self, window: int, reply: Any) -> None:
        """How many are kept in one window; the last one is told to the router."""
        if not isinstance(reply, (set, list)):
            return
        self._kept[window] = {int(count) for count in reply}
        if len(self._kept) == len(kept_windows_at(self._unix_s)):
            self._router.hear_kept(join_kept(self._kept, self._unix_s), time.monotonic())
