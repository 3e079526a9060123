"""Keeps the platform's processes alive, and stops them in the reverse of the order in which they were added.

A process that ends by itself is started again after a growing pause. One that keeps ending within a short time is not
started any more: the platform stops and says why.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ias.local.errors import PlatformError
from ias.local.process import PlatformProcess, ProcessFailedError, ProcessSpec

_RESTARTS_MAX = 5
_RESTART_WINDOW_S = 120.0
_FIRST_PAUSE_S = 0.5
_PATIENCE_S = 15.0
_STEADY_S = 30.0
"""A process that ran this long before it ended starts again without a memory of earlier ends."""

Report = Callable[[str], None]


class Supervisor:
    """The processes of one platform, in the order in which they are stopped last to first."""

    def __init__(self, report: Report, on_change: Callable[[], None]) -> None:
        self._report = report
        self._on_change = on_change
        self._processes: list[PlatformProcess] = []
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[ProcessFailedError] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()

    def describe(self) -> list[dict[str, Any]]:
        """Each process with its state, for `ias status`."""
        return [
            {
                "name": process.spec.name,
                "pid": process.pid,
                "ready": process.ready,
                "restarts": process.restarts,
                "started_at": process.started_at,
            }
            for process in self._processes
        ]

    def pids(self) -> dict[str, int]:
        """The process ids of those that run, by name."""
        return {process.spec.name: process.pid for process in self._processes if process.pid is not None}

    def add(self, spec: ProcessSpec) -> PlatformProcess:
        """Take a process in without starting it: its place in this list is its place in the order of stopping."""
        process = PlatformProcess(spec)
        self._processes.append(process)
        return process

    async def start(self, process: PlatformProcess) -> None:
        """Start a process, wait until it serves, and keep it alive from then on.

        Raises:
            ProcessFailedError: it did not come up.
        """
        await process.start()
        self._on_change()
        patience = asyncio.create_task(self._report_waiting(process))
        try:
            await process.wait_ready()
        finally:
            patience.cancel()
        self._on_change()
        self._watchers[process.spec.name] = asyncio.create_task(self._keep_alive(process))

    async def wait_failed(self) -> ProcessFailedError:
        """Wait until a process could not be kept alive."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Stop everything that runs, last added first."""
        self._stopping.set()
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        for process in reversed(self._processes):
            if process.pid is not None:
                self._report(f"stopping {process.spec.name}")
            await process.stop()
            self._on_change()

    def kill(self) -> None:
        """End everything at once."""
        self._stopping.set()
        for process in reversed(self._processes):
            process.kill()

    async def _report_waiting(self, process: PlatformProcess) -> None:
        while True:
            await asyncio.sleep(_PATIENCE_S)
            self._report(f"still waiting for {process.spec.name} (its log: {process.spec.log_file})")

    async def _keep_alive(self, process: PlatformProcess) -> None:
        ends: list[float] = []
        while not self._stopping.is_set():
            how = await process.wait_ended()
            if self._stopping.is_set():
                return
            self._on_change()
            now = time.time()
            if now - process.started_at > _STEADY_S:
                ends.clear()
            ends = [*(end for end in ends if now - end < _RESTART_WINDOW_S), now]
            if len(ends) > _RESTARTS_MAX or not await self._restart(process, how, pause_index=len(ends) - 1):
                self._give_up(process, how, len(ends))
                return

    async def _restart(self, process: PlatformProcess, how: str, *, pause_index: int) -> bool:
        """Whether it serves again. A start that fails counts as one more end, by ending."""
        pause_s = _FIRST_PAUSE_S * 2**pause_index
        self._report(f"{process.spec.name} {how}; starting it again in {pause_s:g} s")
        await asyncio.sleep(pause_s)
        process.restarts += 1
        try:
            await process.start()
            self._on_change()
            await process.wait_ready()
        except PlatformError:
            # One that runs and does not serve will not end by itself either; one that ended counts as one more end.
            return process.pid is None
        self._report(f"{process.spec.name} is back (process {process.pid})")
        self._on_change()
        return True

    def _give_up(self, process: PlatformProcess, how: str, times: int) -> None:
        if not self._failure.done():
            self._failure.set_result(
                process.failure(f"{process.spec.name} {how}, {times} times within {_RESTART_WINDOW_S:.0f} s")
            )
