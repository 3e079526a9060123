"""The gateway's own CPU per request, without kernel and network: fake transports, replies given on the spot.

    python benchmarks/python_cost.py [--stream] [--events-a-read 4] [--limits] [--backends 16] [--batches 500] [--profile]

The quickest of many small batches is printed, which holds within a microsecond on a busy machine where whole runs do not. For
finding out whether a change helps; run.py says what it all costs in truth.
"""

import argparse
import asyncio
import base64
import cProfile
import gc
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import msgspec
import uvloop
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.upstream import build_answer, build_events
from ias.contracts.api_keys import KeyRecord, TenantRecord, generate_key
from ias.contracts.routes import Backend, ModelRoute, RouteTable
from ias.contracts.spending import Budget, Metric, Price, PriceTable, RateLimit, SpendingPolicy
from ias.gateway.connection import ServerConnection
from ias.gateway.redis_connection import RedisConnection
from ias.gateway.settings import GatewaySettings
from ias.gateway.snapshots import Principal, _Remembered
from ias.gateway.upstream import UpstreamConnection
from ias.gateway.worker import Worker

_BATCH = 25
_METRICS: tuple[Metric, ...] = ("requests_per_minute", "tokens_per_minute", "concurrency")


class FakeTransport(asyncio.Transport):
    """Takes bytes and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote = False

    def write(self, data: object) -> None:  # noqa: ARG002
        self.wrote = True

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class FakeRedis(FakeTransport):
    """The other end of the connection to Redis: answers every script at once."""

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__()
        self._protocol = connection._make_protocol()  # noqa: SLF001
        self._protocol.connection_made(self)
        connection._protocol, connection._loop = self._protocol, asyncio.get_running_loop()  # noqa: SLF001
        connection.is_ready = True
        numbers = [1, 1000, *(900, 5000) * len(_METRICS)]
        self._reply = b"*%d\r\n" % len(numbers) + b"".join(b":%d\r\n" % number for number in numbers)

    def answer(self) -> None:
        self._protocol.data_received(self._reply * len(self._protocol.pending))


def build_worker(directory: Path, key: str, *, limits: bool, backends: int) -> Worker:
    settings = GatewaySettings(
        redis_url=SecretStr("redis://127.0.0.1:1"),
        bus_url=SecretStr("redis://127.0.0.1:1"),
        secret_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
        gateway_run_dir=directory,
        gateway_spool_dir=directory / "spool",
        gateway_snapshot_ttl_s=10**9,
    )
    worker = Worker(settings)
    snapshots = worker.gateway.snapshots
    route = ModelRoute(
        model_id="m",
        name="m",
        created=1,
        context_length=8192,
        backends=tuple(
            Backend(id=str(UUID(int=number)), url="http://127.0.0.1:1/v1", upstream_model="m")
            for number in range(backends)
        ),
    )
    snapshots.routes = RouteTable(version=1, models={"m": route})
    price = Price(
        id="price",
        version=1,
        model="m",
        effective_at=0,
        input_nano_usd_per_million=150_000_000,
        cached_input_nano_usd_per_million=75_000_000,
        output_nano_usd_per_million=600_000_000,
    )
    snapshots.prices = PriceTable(version=1, prices={"m": (price,)})
    snapshots.counters_ready = True
    budget = Budget(id="b", scope_kind="org", scope_id="org", window="month", limit_nano_usd=10**15, mode="hard")
    rate_limits = tuple(
        RateLimit(id=metric, scope_kind="org", scope_id="org", metric=metric, limit=10**6) for metric in _METRICS
    )
    principal = Principal(
        KeyRecord(version=1, key_id="key", org_id="org", project_id="project"),
        TenantRecord(version=1, id="org"),
        TenantRecord(version=1, id="project"),
        SpendingPolicy(version=1, org_id="org", budgets=(budget,), rate_limits=rate_limits if limits else ()),
    )
    import hashlib  # noqa: PLC0415

    snapshots._remembered[hashlib.sha256(key.encode()).digest()] = _Remembered(principal, float("inf"))  # noqa: SLF001
    return worker


def build_request(key: str, *, stream: bool) -> bytes:
    document: dict[str, object] = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You answer in one short and friendly paragraph, whatever you are asked."},
            {"role": "user", "content": "Which rivers flow through the oldest towns of the country? " * 19},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
    }
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    body = msgspec.json.encode(document)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
    )


def merge(events: list[bytes], count: int) -> list[bytes]:
    """Events as they are read where the backend is ahead of the gateway."""
    return [b"".join(events[start : start + count]) for start in range(0, len(events), count)]


async def measure(
    directory: Path,
    *,
    stream: bool,
    events_a_read: int,
    limits: bool,
    backends: int,
    batches: int,
    profile: cProfile.Profile | None,
) -> float:
    key = generate_key()
    worker = build_worker(directory, key, limits=limits, backends=backends)
    redis = FakeRedis(worker.gateway.redis)
    worker.gateway.access_log._fd = os.open(os.devnull, os.O_WRONLY)  # noqa: SLF001
    pool = worker.gateway.upstreams.pool("http://127.0.0.1:1/v1")
    upstream = UpstreamConnection(pool)
    upstream.connection_made(FakeTransport())
    pool._lend(upstream)  # noqa: SLF001
    pool.put_back(upstream)
    client = ServerConnection(worker.pipeline, worker.connections)
    client.connection_made(FakeTransport())
    request = build_request(key, stream=stream)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    segments = [head, *merge(build_events(64), events_a_read)] if stream else [build_answer()]
    best = float("inf")
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # as the worker does
    if profile is not None:
        profile.enable()
    for _ in range(batches):
        started = time.process_time()
        for _ in range(_BATCH):
            client.data_received(request)
            redis.answer()
            for segment in segments:
                upstream.data_received(segment)
            redis.answer()
        await asyncio.sleep(0)
        best = min(best, time.process_time() - started)
    if profile is not None:
        profile.disable()
    served = sum(tally.requests for tally in worker.gateway.metrics._tallies.values())  # noqa: SLF001
    if served != _BATCH * batches or worker.gateway.spool.appended != served:
        sys.exit(f"only {served} requests were served")
    return best / _BATCH * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--events-a-read", type=int, default=1)
    parser.add_argument("--limits", action="store_true", help="three rate limits beside the budget")
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument(
        "--backends", type=int, default=1, help="backends of the model: with more than one there is a choice"
    )
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    with tempfile.TemporaryDirectory() as directory:
        cost = uvloop.run(
            measure(
                Path(directory),
                stream=arguments.stream,
                events_a_read=arguments.events_a_read,
                limits=arguments.limits,
                batches=arguments.batches,
                backends=arguments.backends,
                profile=profile,
            )
        )
    print(f"{cost:.1f} us a request")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
