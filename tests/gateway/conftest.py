"""Fixtures for tests of the gateway: a scripted backend, pushed documents, a worker in the test's own event loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.engine.conftest import start_engine  # noqa: F401  # a fixture here too
from tests.gateway.platform import Pushed, RunningGateway, run_gateway
from tests.gateway.scripted_upstream import ScriptedUpstream, answer_politely, run_upstream

StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def pushed(redis_url: str) -> AsyncIterator[Pushed]:
    async with Redis.from_url(redis_url) as redis:
        yield Pushed(redis)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with run_upstream(answer_politely) as running:
        yield running


@pytest.fixture
def started_gateways() -> list[RunningGateway]:
    """The gateways that the test has started so far."""
    return []


@pytest.fixture
async def start_gateway(
    redis_url: str, tmp_path: Path, pushed: Pushed, started_gateways: list[RunningGateway]
) -> AsyncIterator[StartGateway]:
    """Start a worker with settings of the test's own; it must be quiet when the test ends."""
    async with AsyncExitStack() as stack:
        started = started_gateways

        async def start(**settings: Any) -> RunningGateway:
            running = await stack.enter_async_context(
                run_gateway(redis_url, tmp_path / str(len(started)), pushed, **settings)
            )
            started.append(running)
            return running

        yield start
        for running in started:
            await running.until_quiet()
            assert running.worker.gateway.metrics.internal_errors == 0


@pytest.fixture
async def gateway(start_gateway: StartGateway, pushed: Pushed, upstream: ScriptedUpstream) -> RunningGateway:
    """A gateway with everything pushed: key `pushed.key`, model `m` at the scripted backend."""
    await pushed.everything(upstream.url)
    running = await start_gateway()
    await running.until_ready()
    return running
