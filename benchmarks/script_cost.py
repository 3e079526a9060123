"""What the admission and settlement scripts cost Redis, by its own count (INFO commandstats), for several sets of ceilings.

    python benchmarks/script_cost.py

A Redis of its own (`redis-server` must be on the PATH) is called in small batches; the quickest is printed, which holds on a busy
machine. The first two columns are microseconds of a call, the third both together; '-' where nothing has to be settled.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parents[1]))

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord
from ias.contracts.spending import Budget, Metric, RateLimit, ScopeKind, SpendingPolicy, Window, window_parts
from ias.gateway.admission_plan import AdmissionPlan
from ias.gateway.script_calls import RESERVE, SETTLE, SettleCall

_BATCH = 100
_ROUNDS = 100
_SCOPES: tuple[tuple[ScopeKind, str], ...] = (
    ("org", "org"),
    ("project", "project"),
    ("api_key", "key"),
    ("user", "user"),
    ("model", "m"),
)
_CASES: dict[str, tuple[tuple[Window, ...], tuple[Metric, ...], int]] = {
    "1 budget": (("month",), (), 1),
    "2 budgets": (("month", "day"), (), 1),
    "1 rolling budget (24 h)": (("rolling_24h",), (), 1),
    "1 rolling budget (30 days)": (("rolling_30d",), (), 1),
    "1 budget, 1 rolling budget (30 days)": (("month", "rolling_30d"), (), 1),
    "requests/min": ((), ("requests_per_minute",), 1),
    "requests/min, tokens/min": ((), ("requests_per_minute", "tokens_per_minute"), 1),
    "requests/min, tokens/min, concurrency": ((), ("requests_per_minute", "tokens_per_minute", "concurrency"), 1),
    "the same and 1 budget": (("month",), ("requests_per_minute", "tokens_per_minute", "concurrency"), 1),
    "requests/min, tokens/min at five scopes": ((), ("requests_per_minute", "tokens_per_minute"), 5),
}
"""The windows of budgets, and rate limits at so many scopes. Every part of a rolling window has been spent in."""


@contextlib.contextmanager
def running_redis() -> Iterator["redis.Redis"]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.05)
        yield client
    finally:
        server.terminate()
        server.wait(10)


def build_plan(windows: tuple[Window, ...], metrics: tuple[Metric, ...], scopes: int) -> AdmissionPlan:
    limits = tuple(
        RateLimit(id=f"{metric}-{kind}", scope_kind=kind, scope_id=scope_id, metric=metric, limit=10**8)
        for metric in metrics
        for kind, scope_id in _SCOPES[:scopes]
    )
    some = tuple(
        Budget(id=f"{i:036}", scope_kind="org", scope_id="org", window=window, limit_nano_usd=10**15, mode="hard")
        for i, window in enumerate(windows)
    )
    key = KeyRecord(version=1, key_id="key", org_id="org", project_id="project", user_id="user")
    policy = SpendingPolicy(version=1, org_id="org", budgets=some, rate_limits=limits)
    return AdmissionPlan.build(policy, key, "m", time.time())


def time_calls(client: "redis.Redis", calls: list[bytes]) -> float:
    """Microseconds a call, sent over a bare connection as the gateway does."""
    client.config_resetstat()
    pool = client.connection_pool
    connection = pool.get_connection()
    connection.send_packed_command(calls)
    for _ in calls:
        connection.read_response()
    pool.release(connection)
    counted = client.info("commandstats")["cmdstat_evalsha"]  # type: ignore[index]
    return float(counted["usec"] / counted["calls"])


def main() -> None:
    settle = SettleCall("org")
    with running_redis() as client:
        for script in (RESERVE, SETTLE):
            client.script_load(script.source)
        for name, case in _CASES.items():
            plan = build_plan(*case)
            for budget in plan.budgets:
                for part in window_parts(budget.window, time.time()):
                    client.hset(
                        redis_keys.budget_counter("org", budget.id, part.id), mapping={"settled": 5, "reserved": 0}
                    )
            reserved = settled = float("inf")
            for i in range(_ROUNDS):
                ids = [b"req_%032x" % (i * _BATCH + j) for j in range(_BATCH)]
                reserved = min(reserved, time_calls(client, [plan.call.fill(each, 100, 300, 660) for each in ids]))
                if plan.is_settled:
                    settled = min(settled, time_calls(client, [settle.fill(each, 50, 200) for each in ids]))
            both = f"{settled:8.1f} {reserved + settled:8.1f}" if plan.is_settled else f"{'-':>8} {reserved:8.1f}"
            print(f"{name:42} {reserved:8.1f} {both}")


if __name__ == "__main__":
    main()
