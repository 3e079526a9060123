"""One process of the platform: started in a group of its own, watched until it is ready, stopped within a deadline."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ias.local.data_directory import explain_os_errors
from ias.local.errors import PlatformError

_READY_POLL_S = 0.1
_LOG_TAIL_BYTES = 8192

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What to run and how to tell that it serves."""

    name: str
    arguments: list[str]
    """The whole command, launched as it stands."""
    environment: Mapping[str, str]
    log_file: Path
    probe: Probe
    """Whether the process serves now. It must answer within seconds and must not raise."""
    ready_timeout_s: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    """How long it may take to finish before it is killed."""


class ProcessFailedError(PlatformError):
    """A process ended, or never became ready."""


@dataclass
class PlatformProcess:
    """A started process. `restarts` counts how often it had to be started again."""

    spec: ProcessSpec
    restarts: int = 0
    ready: bool = False
    started_at: float = field(default_factory=time.time)
    """Unix seconds."""
    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Launch it. Its output goes to its log file."""
        self.ready = False
        self.started_at = time.time()
        with explain_os_errors(self.spec.log_file):
            log = os.open(self.spec.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.arguments,
                env=dict(self.spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessFailedError(f"{self.spec.name} could not be started ({error.strerror})") from error
        finally:
            os.close(log)

    async def wait_ready(self) -> None:
        """Return when the process serves.

        Raises:
            ProcessFailedError: it ended first, or the deadline passed. The message ends with its last log lines.
        """
        deadline = time.monotonic() + self.spec.ready_timeout_s
        while time.monotonic() < deadline:
            if self._running.returncode is not None:
                raise self.failure(f"{self.spec.name} {_describe_exit(self._running.returncode)} while starting")
            if await self.spec.probe():
                self.ready = True
                return
            await asyncio.sleep(_READY_POLL_S)
        raise self.failure(f"{self.spec.name} was not ready within {self.spec.ready_timeout_s:.0f} s")

    async def wait_ended(self) -> str:
        """Wait until the process ends, and end what it had started; how it ended, in words."""
        code = await self._running.wait()
        self.kill()
        self.ready = False
        return _describe_exit(code)

    def failure(self, what: str) -> ProcessFailedError:
        """The error for something this process did, with the last lines of its log."""
        tail = read_tail(self.spec.log_file, lines=5)
        said = ("; it last said:\n    " + "\n    ".join(tail)) if tail else ""
        return ProcessFailedError(what, f"the whole log is {self.spec.log_file}{said}")

    async def stop(self) -> None:
        """Ask it to finish, kill it when the deadline passes, and leave nothing of its group behind."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._signal(self.spec.stop_signal)
            try:
                await asyncio.wait_for(self._process.wait(), self.spec.stop_timeout_s)
            except TimeoutError:
                self.kill()
                await self._process.wait()
        self.kill()
        self.ready = False

    def kill(self) -> None:
        """End the process and everything it started, at once."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        try:
            self._running.send_signal(number)
        except ProcessLookupError:
            return


def read_tail(path: Path, *, lines: int) -> list[str]:
    """The last lines of a log, empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG_TAIL_BYTES * max(1, lines // 5)))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
