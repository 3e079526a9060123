"""A replica served over HTTP in this process, on a port of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from openai import AsyncOpenAI

from ias.engine.server import build_app
from ias.engine.settings import EngineSettings

START_TIMEOUT_S = 10

StartEngine = Callable[..., Awaitable[str]]


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """`await start_engine(tokens_per_second=100)` returns the base URL of a new replica."""
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def start(**settings: object) -> str:
        quick = {"model": "sim", "tokens_per_second": 0, "ttft_ms": 0, **settings}
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            build_app(EngineSettings(**quick)), lifespan="off", log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        running.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        async with asyncio.timeout(START_TIMEOUT_S):
            while not server.started:
                await asyncio.sleep(0.01)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, task in running:
        server.should_exit = True
        await task


@pytest.fixture
async def engine_url(start_engine: StartEngine) -> str:
    return await start_engine()


@pytest.fixture
async def client(engine_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{engine_url}/v1", api_key="none", max_retries=0) as opened:
        yield opened
