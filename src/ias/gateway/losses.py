"""What a worker tells a Redis that may have lost its data: what requests under way hold, and whether usage waits in its spool.

Billing completes the counters only when it knows both (decision 4), so that no hard budget admits again what is spent already.
"""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from os import getpid

from ias.contracts import redis_keys
from ias.gateway.admission_plan import pack_restore
from ias.gateway.admit import find_lifetime_s
from ias.gateway.context import Gateway
from ias.gateway.exchange import Exchange
from ias.gateway.redis_connection import RedisAwayError, ignore_reply, pack

_WORKER = f"{socket.gethostname()}:{getpid()}"


def restore_reservations(gateway: Gateway, exchanges: Iterable[Exchange]) -> None:
    """Hold again what requests under way hold. Where Redis still has it, nothing happens."""
    for exchange in exchanges:
        principal, plan = exchange.principal, exchange.plan
        if not exchange.may_hold_reservation or exchange.reserved_nano_usd == 0 or principal is None or plan is None:
            continue
        amount, lifetime_s = exchange.reserved_nano_usd, find_lifetime_s(gateway)
        command = pack_restore(plan, principal.key.org_id, exchange.request_id, amount, lifetime_s)
        with suppress(RedisAwayError):  # lost again: everything is told once more when it is back
            gateway.redis.call(command, ignore_reply)


def tell_unpublished(gateway: Gateway) -> None:
    """While the counters are not complete: whether usage waits here that billing cannot know of yet."""
    if gateway.snapshots.counters_ready or not gateway.redis.is_ready:
        return
    if gateway.spool.bytes > 0:
        command = pack("ZADD", redis_keys.UNPUBLISHED, time.time_ns() // 1_000_000, _WORKER)
    else:
        command = pack("ZREM", redis_keys.UNPUBLISHED, _WORKER)
    with suppress(RedisAwayError):
        gateway.redis.call(command, ignore_reply)
