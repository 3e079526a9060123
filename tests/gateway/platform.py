"""What surrounds a gateway in tests: the documents the management services would push, and a worker to serve from them."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr
from redis.asyncio import Redis

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord, digest_key, generate_key
from ias.contracts.routes import Backend, ModelRoute, RouteTable
from ias.contracts.spending import Budget, Metric, Price, PriceTable, RateLimit, ScopeKind, SpendingPolicy
from ias.gateway.metrics_export import collect_snapshots, render_numbers
from ias.gateway.settings import GatewaySettings
from ias.gateway.worker import Worker

SECRET_KEY = base64.b64encode(b"k" * 32).decode()
ORG, PROJECT, KEY_ID, USER = "org-1", "project-1", "key-1", "user-1"

INPUT_PRICE, CACHED_PRICE, OUTPUT_PRICE = 1_000_000_000, 500_000_000, 2_000_000_000
"""Nano-USD per million tokens: 1000 nano-USD an input token, 2000 an output token."""


class CollectingPublisher:
    """A bus that keeps what it is given, and is away when told so."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.is_away = False

    async def publish(self, topic: str, body: bytes, *, message_id: str) -> None:  # noqa: ARG002
        if self.is_away:
            raise ConnectionError("the bus is away")
        message = json.loads(body)
        assert topic == "usage_recorded"
        assert message["schema"] == "usage_recorded/1"
        self.records += message["records"]

    async def close(self) -> None:
        pass


@dataclass
class Pushed:
    """Documents in Redis, as the management services push them."""

    redis: Redis
    key: str = field(default_factory=generate_key)
    versions: int = 0

    async def put(self, name: str, document: msgspec.Struct | None) -> None:
        if document is None:
            await self.redis.delete(name)
        else:
            await self.redis.set(name, msgspec.json.encode(document))

    async def tenants(self, *, org: str = ORG, project: str = PROJECT, **more: Any) -> None:
        await self.put(redis_keys.org(org), TenantRecord(version=1, id=org, **more))
        await self.put(redis_keys.project(project), TenantRecord(version=1, id=project))

    async def api_key(self, key: str | None = None, **more: Any) -> str:
        key = key or self.key
        record = {"version": 1, "key_id": KEY_ID, "org_id": ORG, "project_id": PROJECT, "user_id": USER, **more}
        await self.put(redis_keys.api_key(digest_key(key)), KeyRecord(**record))
        return key

    async def routes(self, models: dict[str, dict[str, Any]]) -> None:
        self.versions += 1
        table = RouteTable(
            version=self.versions,
            models={
                name: ModelRoute(
                    **{"model_id": name, "name": name, "created": 1700000000, "context_length": 8192, **model}
                )
                for name, model in models.items()
            },
        )
        await self.put(redis_keys.ROUTES, table)

    async def prices(self, *models: str, **more: Any) -> None:
        prices = {
            model: (
                Price(
                    **{
                        "id": f"price-{model}",
                        "version": 1,
                        "model": model,
                        "effective_at": 0,
                        "input_nano_usd_per_million": INPUT_PRICE,
                        "cached_input_nano_usd_per_million": CACHED_PRICE,
                        "output_nano_usd_per_million": OUTPUT_PRICE,
                        **more,
                    }
                ),
            )
            for model in models
        }
        await self.put(redis_keys.PRICES, PriceTable(version=1, prices=prices))

    async def budgets(self, *budgets: Budget, org: str = ORG) -> None:
        await self.ceilings(budgets=budgets, org=org)

    async def limits(self, *limits: RateLimit, org: str = ORG) -> None:
        await self.ceilings(limits=limits, org=org)

    async def ceilings(
        self, *, budgets: tuple[Budget, ...] = (), limits: tuple[RateLimit, ...] = (), org: str = ORG, **more: Any
    ) -> None:
        policy = SpendingPolicy(version=1, org_id=org, budgets=budgets, rate_limits=limits, **more)
        await self.put(redis_keys.spending_policy(org), policy)

    async def counters_ready(self) -> None:
        await self.redis.set(redis_keys.COUNTERS_READY, "1")

    async def everything(self, *urls: str, **model: Any) -> None:
        """One org, project and key; model `m` at the given backends, priced."""
        await self.tenants()
        await self.api_key()
        await self.routes({"m": {"backends": backends(*urls), **model}})
        await self.prices("m")
        await self.counters_ready()

    async def find_counter(self, budget: str, org: str = ORG) -> bytes:
        """The key of the only counter of a budget."""
        (key,) = await self.redis.keys(redis_keys.budget_counter(org, budget, "*"))
        return bytes(key)

    async def counter(self, budget: str, window: str = "total", org: str = ORG) -> tuple[int, int]:
        """What a budget's counter says: settled and reserved."""
        settled, reserved = await self.redis.hmget(
            redis_keys.budget_counter(org, budget, window), ["settled", "reserved"]
        )
        return int(settled or 0), int(reserved or 0)


def backends(*urls: str, **more: Any) -> tuple[Backend, ...]:
    return tuple(
        Backend(**{"id": f"backend-{i}", "url": url, "upstream_model": "m", **more}) for i, url in enumerate(urls)
    )


def budget(limit: int, *, kind: str = "org", scope: str = ORG, mode: str = "hard", name: str = "b1") -> Budget:
    return Budget(
        id=name,
        scope_kind=kind,  # type: ignore[arg-type]
        scope_id=scope,
        window="total",
        limit_nano_usd=limit,
        mode=mode,  # type: ignore[arg-type]
    )


def limit(
    metric: Metric, limit: int, *, kind: ScopeKind = "org", scope: str = ORG, name: str | None = None
) -> RateLimit:
    return RateLimit(id=name or metric, scope_kind=kind, scope_id=scope, metric=metric, limit=limit)


def settings_for(redis_url: str, directory: Path, **more: Any) -> GatewaySettings:
    values: dict[str, Any] = {
        "redis_url": SecretStr(redis_url),
        "bus_url": SecretStr("redis://127.0.0.1:1/0"),
        "secret_key": SecretStr(SECRET_KEY),
        "gateway_port": 0,
        "gateway_run_dir": directory / "run",
        "gateway_spool_dir": directory / "spool",
        "gateway_publish_interval_s": 0.05,
        "gateway_access_log": False,
        "gateway_drain_s": 0.5,
        "gateway_redis_timeout_s": 10.0,  # tests of outages set their own; a busy machine is none
        "gateway_connect_timeout_s": 10.0,
        "gateway_allow_loopback": True,
        **more,
    }
    return GatewaySettings(**values)


@dataclass
class RunningGateway:
    """A worker in the test's own event loop, and what it has published."""

    worker: Worker
    port: int
    publisher: CollectingPublisher
    pushed: Pushed

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def authorization(self) -> str:
        return f"Bearer {self.pushed.key}"

    def metrics(self) -> str:
        """What `/metrics` would say by now."""
        gateway = self.worker.gateway
        gateway.metrics.save()
        return render_numbers(collect_snapshots(gateway.settings.gateway_run_dir)).decode()

    async def until_ready(self) -> None:
        snapshots = self.worker.gateway.snapshots
        await until(lambda: snapshots.routes is not None and snapshots.prices is not None and snapshots.counters_ready)

    async def records(self, count: int) -> list[dict[str, Any]]:
        """The usage records on the bus, once there are so many."""
        await until(lambda: len(self.publisher.records) >= count)
        return self.publisher.records

    async def until_nothing_is_held(self) -> None:
        """No reservation, no busy connection to a backend, no exchange, no task: what must hold after every fault."""
        await self.until_quiet()
        gateway = self.worker.gateway
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "connect-backend" and not task.done()]
        assert not any(pool.busy or pool.in_flight for pool in gateway.upstreams._pools.values())
        for desk in gateway.routers._desks.values():
            for load in desk.router.loads.values():
                assert (load.requests, load.tokens, load.pending_tokens, load.burden) == (0, 0, 0, 0), load.backend_id
            assert desk.router.queue.length == 0
        if gateway.redis.is_ready:
            assert await self.pushed.redis.keys("*:reservation:*") == []
            assert await self.pushed.redis.keys("*:reservations") == []
            assert await self.pushed.redis.keys("*:rate_limit:concurrency*") == []
            for counter in await self.pushed.redis.keys("*:budget:*"):
                assert int(await self.pushed.redis.hget(counter, "reserved") or 0) == 0, counter  # type: ignore[misc]

    async def until_quiet(self) -> None:
        """Nothing in flight, nothing reserved that is not settled: what must hold after every test."""
        gateway = self.worker.gateway
        await until(
            lambda: (
                gateway.metrics.in_flight == 0
                and gateway.upstreams.in_flight == 0
                and (gateway.settlements.waiting == 0 or not gateway.redis.is_ready)
            )
        )


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition; fail when it does not come about."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def run_gateway(redis_url: str, directory: Path, pushed: Pushed, **settings: Any) -> Any:
    publisher = CollectingPublisher()
    worker = Worker(settings_for(redis_url, directory, **settings), publisher=publisher)
    port = await worker.start()
    try:
        yield RunningGateway(worker, port, publisher, pushed)
    finally:
        await worker.close()
