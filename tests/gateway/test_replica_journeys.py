"""Replicas die, hang and are replaced under load: no request fails that another replica could serve.

The replicas are `ias engine sim` processes, the load is a dozen clients without retries of their own.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway, backends, until
from tests.servers.launch import free_port

POLICY = {"strategy": "least_tokens", "first_byte_timeout_s": 1.0}


class Replica:
    """One engine."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", "from ias.cli.main import main; main()", "engine", "sim", "--model", "m"]
        command += ["--port", str(self.port), "--tokens-per-second", "200", "--ttft-ms", "20", "--admin"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def until_it_listens(self) -> None:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await http.get(f"http://127.0.0.1:{self.port}/health")
                    return
                await asyncio.sleep(0.05)

    async def fault(self, **faults: object) -> None:
        async with httpx.AsyncClient() as http:
            (await http.put(f"http://127.0.0.1:{self.port}/admin/faults", json=faults)).raise_for_status()


class Load:
    """A dozen clients who ask one thing after another until they are stopped."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.answers: list[httpx.Response] = []
        self._gateway = gateway
        self._stopped = False
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(12)]

    async def _ask(self) -> None:
        headers = {"authorization": self._gateway.authorization}
        body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}
        async with httpx.AsyncClient(base_url=self._gateway.base_url, headers=headers, timeout=30) as http:
            while not self._stopped:
                self.answers.append(await http.post("/v1/chat/completions", json=body))

    async def more(self, count: int) -> Counter[str]:
        """Who gives the next so many answers."""
        before = len(self.answers)
        await until(lambda: len(self.answers) >= before + count, timeout_s=30)
        return Counter(answer.headers.get("x-ias-backend", "") for answer in self.answers[before:])

    async def stop(self) -> None:
        """Every request was served."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        refused = [answer.text for answer in self.answers if answer.status_code != 200]
        assert not refused, refused[:3]


@pytest.fixture
async def replicas() -> AsyncIterator[list[Replica]]:
    started = [Replica() for _ in range(4)]
    try:
        await asyncio.gather(*(replica.until_it_listens() for replica in started))
        yield started
    finally:
        for replica in started:
            replica.process.kill()
            replica.process.wait()


async def test_replicas_are_killed_hang_and_are_replaced_without_a_failed_request(
    start_gateway: StartGateway, pushed: Pushed, replicas: list[Replica]
) -> None:
    first, second, third, fourth = (replica.url for replica in replicas)
    await pushed.everything(first, second, third, policy=POLICY)
    gateway = await start_gateway()
    await gateway.until_ready()
    load = Load(gateway)
    assert len(await load.more(60)) == 3

    replicas[0].process.send_signal(signal.SIGKILL)
    seen = await load.more(60)
    assert seen["backend-1"] > 0
    assert seen["backend-2"] > 0

    await replicas[1].fault(hang={"rate": 1})
    assert (await load.more(80))["backend-2"] > 0
    await replicas[1].fault()

    table = (*backends(first, second, third), *backends(fourth, id="new"))
    await pushed.routes({"m": {"backends": table, "policy": POLICY}})  # in place of the first
    await load.more(40)
    draining = (*backends(second, id="backend-1"), *backends(third, id="backend-2", draining=True), table[3])
    await pushed.routes({"m": {"backends": draining, "policy": POLICY}})
    desk = gateway.worker.gateway.routers._desks["m"]
    await until(lambda: "backend-2" in desk.router.loads and not desk.router.loads["backend-2"].requests)
    replicas[2].process.send_signal(signal.SIGTERM)
    await load.more(24)  # some answers were on their way
    seen = await load.more(60)
    assert seen["backend-2"] == 0
    assert seen["new"] > 0
    await load.stop()
    await gateway.until_nothing_is_held()


async def test_the_kill_switch_works_within_a_second_in_every_gateway_and_canaries_keep_their_share(
    start_gateway: StartGateway, pushed: Pushed, replicas: list[Replica]
) -> None:
    first, second, canary, _ = (replica.url for replica in replicas)
    policy = {**POLICY, "canary_percent": 25}
    table = (*backends(first, second), *backends(canary, id="canary", group="canary"))
    await pushed.everything(first)
    await pushed.routes({"m": {"backends": table, "policy": policy}})
    gateways = [await start_gateway() for _ in range(2)]
    for gateway in gateways:
        await gateway.until_ready()
    loads = [Load(gateway) for gateway in gateways]
    for load in loads:
        seen = await load.more(100)
        assert 15 <= seen["canary"] <= 35

    off = (*backends(first, enabled=False), *table[1:])
    await pushed.routes({"m": {"backends": off, "policy": policy}})
    async with asyncio.timeout(1):
        while any(g.worker.gateway.routers._desks["m"].router.loads["backend-0"].requests for g in gateways):
            await asyncio.sleep(0.005)
    for load in loads:
        await load.more(24)  # some answers were on their way
        assert (await load.more(60))["backend-0"] == 0
        await load.stop()
    for gateway in gateways:
        await gateway.until_nothing_is_held()
