"""Simulated replicas as processes of their own: to be killed, stopped, put to sleep and made to fail."""

import asyncio
import signal
import subprocess
import sys
from typing import Any

import httpx

from tests.servers.launch import free_port


class Replica:
    """One `ias engine sim`."""

    def __init__(self, *options: str, model: str = "tiny") -> None:
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        self._options = (
            "--model",
            model,
            "--port",
            str(self.port),
            "--admin",
            "--dev-mode",
            "--no-access-log",
            *options,
        )
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> "Replica":
        command = [sys.executable, "-c", "from ias.cli.main import main; main()", "engine", "sim", *self._options]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while self._process.poll() is None:
                try:
                    await http.get(f"{self.root}/health")
                    return self
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
        raise AssertionError("it ended")

    def send(self, what: signal.Signals) -> None:
        """Send a signal to it."""
        assert self._process
        self._process.send_signal(what)

    def kill(self) -> None:
        """Nothing listens there any more when this returns."""
        if self._process:
            self._process.kill()
            self._process.wait()

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient() as http:
            answer = await http.request(method, self.root + path, timeout=10, **more)
        assert answer.is_success, answer.text
        return answer

    async def fail_with(self, **faults: Any) -> None:
        """These faults from now on, and no others."""
        await self.ask("PUT", "/admin/faults", json=faults)
