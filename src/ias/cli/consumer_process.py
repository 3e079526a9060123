"""The process that runs event consumers: all of them in one loop, with `/health`, `/ready` and `/metrics` beside."""

import asyncio
import gc
import signal
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog
import uvloop
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from ias.cli.failures import CommandError
from ias.kit.side_server import SideServer
from ias.kit.web import Check, create_worker_app

log = structlog.get_logger("ias.consumers")

_GC_THRESHOLD = 50_000
"""A message is thousands of objects and leaves no cycles behind: looking for them as often as usual is a quarter of all work."""


class Consumer(Protocol):
    """What a service's `build_consumer` gives."""

    checks: dict[str, Check]
    registry: CollectorRegistry

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set."""


def run_consumers(consumers: Mapping[str, Consumer], *, host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT, then let each finish the message in hand.

    Raises:
        CommandError: a consumer ended by itself.
    """
    uvloop.run(_run(consumers, host, port))


async def _run(consumers: Mapping[str, Consumer], host: str, port: int) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = _health_server(consumers, host, port)
    serving = asyncio.create_task(health.serve())
    running = {asyncio.create_task(consumer.run(stop)): name for name, consumer in consumers.items()}
    ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    asked = stop.is_set()
    stop.set()
    health.should_exit = True
    await asyncio.gather(serving, *running, return_exceptions=True)
    failed = [(running[task], error) for task in running if (error := task.exception())]
    for name, error in failed:
        log.error("consumer failed", consumer=name, exc_info=error)
    if failed or not asked:
        name = failed[0][0] if failed else running[next(iter(ended))]
        raise CommandError(f"the consumer of {name} ended by itself", advice="its log says why")


class _Everything(Collector):
    """The metrics of several registries as those of one."""

    def __init__(self, registries: list[CollectorRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterable[Metric]:
        """Each registry's metrics, one after the other."""
        for registry in self._registries:
            yield from registry.collect()


def _health_server(consumers: Mapping[str, Consumer], host: str, port: int) -> SideServer:
    registry = CollectorRegistry()
    registry.register(_Everything([consumer.registry for consumer in consumers.values()]))
    checks = {
        f"{name} {dependency}": check
        for name, consumer in consumers.items()
        for dependency, check in consumer.checks.items()
    }
    return SideServer(create_worker_app(checks=checks, registry=registry), host=host, port=port)
