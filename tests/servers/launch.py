"""Starting a server under its keeper, waiting until it answers, and stopping it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

KEEPER = Path(__file__).with_name("keeper.py")
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.03


class ServerStartError(RuntimeError):
    """A server exited or did not answer in time; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Launch:
    """How one server is started."""

    directory: Path
    command: Sequence[str]
    owner_pid: int
    """The server is stopped when this process is gone."""
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    user: str = ""
    """The account it runs under; empty is our own."""


@dataclass(frozen=True)
class Kept:
    """A server that runs under a keeper."""

    keeper_pid: int
    directory: Path

    @property
    def server_pid(self) -> int:
        """The pid of the server itself."""
        return int((self.directory / "server.pid").read_text())

    def signal_server(self, number: signal.Signals) -> None:
        """Send a signal to the server itself, e.g. SIGSTOP: a test of what happens when it hangs."""
        os.kill(self.server_pid, number)

    def stop(self) -> None:
        """Stop the server and its keeper; returns when both are gone."""
        stop_keeper(self.keeper_pid)

    def kill(self) -> None:
        """End the server at once, as kill -9 does; returns when it is gone."""
        os.killpg(self.server_pid, signal.SIGKILL)  # each server leads a process group of its own
        _wait_until_gone(self.keeper_pid)


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(launch: Launch, is_ready: Callable[[], bool]) -> Kept:
    """Start a server and return once `is_ready`.

    Raises:
        ServerStartError: it exited, or was not ready within START_TIMEOUT_S.
    """
    arguments = [str(launch.owner_pid), str(int(launch.stop_signal)), str(launch.directory), launch.user]
    detached = subprocess.run(
        [sys.executable, "-I", str(KEEPER), *arguments, *launch.command],
        env={**os.environ, **launch.environment},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=START_TIMEOUT_S,
    )
    kept = Kept(keeper_pid=int(detached.stdout), directory=launch.directory)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        if not _is_alive(kept.keeper_pid) or time.monotonic() > deadline:
            kept.stop()
            log = (launch.directory / "server.log").read_text(errors="replace")
            raise ServerStartError(f"{launch.command[0]} did not start:\n{log[-3000:]}")
        time.sleep(POLL_S)
    return kept


def stop_keeper(pid: int) -> None:
    """Ask a keeper to stop its server, and wait until both are gone."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    _wait_until_gone(pid)


def accepts_connections(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_alive(pid: int) -> bool:
    """False for a zombie too: an ended keeper belongs to init, which may take a second to notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} did not end within {STOP_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
