"""The gateway as it is deployed: a supervisor and its workers, as processes."""

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from ias.local.ports import find_free_ports
from tests.gateway.platform import SECRET_KEY, Pushed, until
from tests.gateway.raw_client import Answer, RawClient, ask, chat, connect, request_bytes
from tests.gateway.scripted_upstream import Received, ScriptedUpstream, Session, chunk


class Supervisor:
    def __init__(self, process: asyncio.subprocess.Process, environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment
        self.port = int(environment["IAS_GATEWAY_PORT"])
        self.metrics_port = int(environment["IAS_GATEWAY_METRICS_PORT"])

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def try_ask(self, *more: object, **named: object) -> Answer | None:
        try:
            return await ask(self.port, *more, **named)  # type: ignore[arg-type]
        except (OSError, asyncio.IncompleteReadError):
            return None

    async def metrics(self) -> str:
        return (await ask(self.metrics_port, method="GET", path="/metrics")).body.decode()

    async def served(self) -> int:
        """Requests that were served, as the merged metrics of all workers have it."""
        metrics = await self.metrics()
        label = 'endpoint="chat_completions",model="m",status="200"'
        found = re.search(rf"ias_gateway_requests_total\{{{label}\}} (\d+)", metrics)
        return int(found[1]) if found else 0

    async def until_ready(self) -> None:
        async with asyncio.timeout(30):
            while (answer := await self.try_ask(method="GET", path="/ready")) is None or answer.status != 200:
                await asyncio.sleep(0.05)


def written_down(run_dir: Path) -> int:
    """Requests in the workers' snapshots: what a crash cannot take with it."""
    total = 0
    for path in run_dir.glob("metrics-*.json"):
        requests = json.loads(path.read_bytes())["counters"]["ias_gateway_requests_total"]
        total += int(requests.get("chat_completions\x1fm\x1f200", 0))
    return total


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
async def supervisor(
    redis_url: str, tmp_path: Path, pushed: Pushed, upstream: ScriptedUpstream
) -> AsyncIterator[Supervisor]:
    await pushed.everything(upstream.url)
    port, metrics_port = find_free_ports(2)
    environment = {
        **os.environ,
        "IAS_REDIS_URL": redis_url,
        "IAS_BUS_URL": redis_url,
        "IAS_SECRET_KEY": SECRET_KEY,
        "IAS_GATEWAY_PORT": str(port),
        "IAS_GATEWAY_METRICS_PORT": str(metrics_port),
        "IAS_GATEWAY_ALLOW_LOOPBACK": "true",
        "IAS_GATEWAY_WORKERS": "2",
        "IAS_GATEWAY_RUN_DIR": str(tmp_path / "run"),
        "IAS_GATEWAY_SPOOL_DIR": str(tmp_path / "spool"),
        "IAS_GATEWAY_DRAIN_S": "2",
        "IAS_GATEWAY_PUBLISH_INTERVAL_S": "0.1",
    }
    with (tmp_path / "access.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ias.gateway.main", env=environment, stdout=output, stderr=asyncio.subprocess.DEVNULL
        )
        running = Supervisor(process, environment)
        try:
            await running.until_ready()
            yield running
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)


@pytest.mark.slow
async def test_79_a_killed_worker_is_replaced_its_usage_published_and_no_key_logged(
    supervisor: Supervisor, pushed: Pushed, tmp_path: Path
) -> None:
    assert len(supervisor.workers()) == 2
    for _ in range(20):
        assert (await ask(supervisor.port, chat(), key=pushed.key)).status == 200
    await until(lambda: written_down(tmp_path / "run") == 20)
    victims = supervisor.workers()
    victims[0].kill()
    await until(lambda: len([w for w in supervisor.workers() if w not in victims]) == 1, 20)
    await supervisor.until_ready()

    async def published() -> int:
        total = 0
        for _, message in await pushed.redis.xrange("ias:bus:usage_recorded"):
            total += len(json.loads(message[b"body"])["records"])
        return total

    async with asyncio.timeout(30):
        while await published() < 20:
            await asyncio.sleep(0.1)
    assert await published() == 20
    assert await supervisor.served() == 20  # what the dead one counted lives on
    supervisor.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(supervisor.process.wait(), 20) == 0
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    served = [line for line in lines if line["path"] == "/v1/chat/completions"]
    assert len(served) == 20
    assert {line["org_id"] for line in served} == {"org-1"}
    assert pushed.key not in json.dumps(lines)


@pytest.mark.slow
async def test_metrics_are_on_a_port_of_their_own_that_cannot_be_taken_twice(
    supervisor: Supervisor, pushed: Pushed, tmp_path: Path
) -> None:
    assert (await ask(supervisor.port, chat(), key=pushed.key)).status == 200
    await until(lambda: written_down(tmp_path / "run") == 1)
    assert await supervisor.served() == 1
    assert (await ask(supervisor.port, method="GET", path="/metrics", key=pushed.key)).status == 404
    for method, path, status in (("GET", "/health", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200)):
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.request(method, f"http://127.0.0.1:{supervisor.metrics_port}{path}")
        assert answer.status_code == status
    second = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ias.gateway.main",
        env={**supervisor.environment, "IAS_GATEWAY_PORT": "0"},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, told = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert f'"port": {supervisor.metrics_port}' in told.decode()


STREAMS = 1000
BYTES_PER_STREAM_MAX = 100_000


@pytest.mark.slow
async def test_51_a_thousand_idle_streams_cost_little_and_all_finish(
    supervisor: Supervisor, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8 * STREAMS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8 * STREAMS, hard), hard))
    go_on = asyncio.Event()
    waiting = 0

    async def wait(_: Received, session: Session) -> None:
        nonlocal waiting
        await session.begin_stream()
        await session.event(chunk("a"))
        waiting += 1
        await go_on.wait()
        await session.event(chunk("b", finish="stop"))
        await session.end_stream()

    upstream.script = wait
    before = sum(worker.memory_info().rss for worker in supervisor.workers())
    gate = asyncio.Semaphore(50)

    async def read(client: RawClient) -> str:
        async with gate:
            await client.send(request_bytes(chat(stream=True), key=pushed.key))
            await client.reader.readuntil(b"\n\n\r\n")
        answer = await client.reader.readuntil(b"0\r\n\r\n")
        return answer.decode()

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(supervisor.port, buffer_bytes=65_536)) for _ in range(STREAMS)
        ]
        reading = [asyncio.create_task(read(client)) for client in clients]
        await until(lambda: waiting == STREAMS, 60)
        used = sum(worker.memory_info().rss for worker in supervisor.workers()) - before
        assert used < STREAMS * BYTES_PER_STREAM_MAX
        assert (await ask(supervisor.port, method="GET", path="/health")).status == 200
        go_on.set()
        for answer in await asyncio.wait_for(asyncio.gather(*reading), 60):
            assert '"b"' in answer
            assert "data: [DONE]" in answer
    async with asyncio.timeout(20):
        while "ias_gateway_in_flight 0\n" not in await supervisor.metrics():
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_93_a_supervisor_that_is_told_to_stop_lets_streams_finish(
    supervisor: Supervisor, pushed: Pushed, upstream: ScriptedUpstream
) -> None:
    go_on = asyncio.Event()

    async def wait(_: Received, session: Session) -> None:
        await session.begin_stream()
        await session.event(chunk("a"))
        await go_on.wait()
        await session.event(chunk("b", finish="stop"))
        await session.end_stream()

    upstream.script = wait
    reading = asyncio.create_task(ask(supervisor.port, chat(stream=True), key=pushed.key))
    await until(lambda: len(upstream.received) == 1)
    await asyncio.sleep(0.1)
    supervisor.process.send_signal(signal.SIGTERM)
    while await supervisor.try_ask(method="GET", path="/health") is not None:
        await asyncio.sleep(0.02)
    go_on.set()
    assert (await reading).text == "ab"
    assert await asyncio.wait_for(supervisor.process.wait(), 20) == 0


@pytest.mark.slow
async def test_an_idle_worker_is_small(supervisor: Supervisor) -> None:
    for worker in supervisor.workers():
        assert worker.memory_info().rss < 120_000_000


@pytest.mark.slow
async def test_workers_end_when_their_supervisor_was_killed(supervisor: Supervisor) -> None:
    workers = supervisor.workers()
    supervisor.process.kill()
    await supervisor.process.wait()
    await until(lambda: not any(is_alive(worker) for worker in workers), 20)
    assert await supervisor.try_ask(method="GET", path="/health") is None


def test_a_worker_may_open_as_many_files_as_the_system_allows() -> None:
    script = (
        "import resource; from ias.gateway.worker import allow_open_files; allow_open_files();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    limited = f'ulimit -S -n 64 && ulimit -H -n 2000 && exec "{sys.executable}" -c "{script}"'
    assert subprocess.check_output(["bash", "-c", limited], text=True).split() == ["2000", "2000"]
