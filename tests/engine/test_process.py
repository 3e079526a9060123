"""`ias engine sim` as a process: it loads, listens, refuses, drains and ends."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from tests.servers.launch import free_port

CHAT = {"messages": [{"role": "user", "content": "x"}], "ignore_eos": True, "stream": True, "max_tokens": 40}

StartProcess = Callable[..., Awaitable[tuple[subprocess.Popen[bytes], str]]]


@pytest.fixture
async def start_process() -> AsyncIterator[StartProcess]:
    running: list[subprocess.Popen[bytes]] = []

    async def start(*options: str, wait: bool = True) -> tuple[subprocess.Popen[bytes], str]:
        port = free_port()
        command = [sys.executable, "-c", "from ias.cli.main import main; main()", "engine", "sim"]
        command += ["--port", str(port), *options]
        process = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.PIPE)
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        if wait:
            await until_it_listens(url, process)
        return process, url

    yield start
    for process in running:
        process.kill()
        process.communicate()


async def until_it_listens(url: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient() as http:
        while process.poll() is None:
            try:
                await http.get(f"{url}/health")
                return
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
    raise AssertionError("it ended")


async def until_it_refuses(url: str) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient() as http:
        while True:
            try:
                await http.get(f"{url}/health")
            except httpx.ConnectError:
                return


async def test_sigterm_lets_answers_end_and_takes_no_new_ones(start_process: StartProcess) -> None:
    process, url = await start_process("--tokens-per-second", "40", "--drain-timeout-s", "30")
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("POST", f"{url}/v1/chat/completions", json=CHAT) as up,
    ):
        lines = up.aiter_lines()
        await anext(lines)
        process.send_signal(signal.SIGTERM)
        await until_it_refuses(url)
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert await asyncio.to_thread(process.wait, 30) in {0, -signal.SIGTERM}


async def test_it_listens_only_when_it_has_loaded_and_can_be_ended_before(start_process: StartProcess) -> None:
    process, url = await start_process("--startup-s", "600", wait=False)
    await asyncio.sleep(0.5)
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/health")
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 30)


async def test_refused_connections_come_back_on_the_same_port(start_process: StartProcess) -> None:
    process, url = await start_process("--admin")
    async with httpx.AsyncClient() as http:
        assert (await http.put(f"{url}/admin/faults", json={"refuse_connections_s": 3})).status_code == 200
    await until_it_refuses(url)
    await until_it_listens(url, process)


async def test_options_that_contradict_each_other_are_one_line() -> None:
    for options in (["--profile", "x@y"], ["--num-gpu-blocks", "3"], ["--faults", "{"], ["--max-num-seqs", "9999"]):
        command = [sys.executable, "-c", "from ias.cli.main import main; main()", "engine", "sim", *options]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "ias engine sim --help" in done.stderr
