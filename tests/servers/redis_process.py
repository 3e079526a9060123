"""A Redis of a test's own, to be killed, paused and started again: for tests of what happens when it is away."""

import shutil
import signal
from pathlib import Path

from tests.servers import programs, redis_server
from tests.servers.launch import Kept, free_port
from tests.servers.run import TestRun


class RedisProcess:
    """A private Redis on a fixed port, with an append-only file when `durable`."""

    def __init__(self, run: TestRun, program: Path, *, durable: bool) -> None:
        self._run = run
        self._program = program
        self._options = ("--appendonly", "yes", "--appendfsync", "always") if durable else ()
        self._directory = run.new_directory("redis-private")
        self._port = free_port()
        self._kept: Kept | None = None

    @property
    def url(self) -> str:
        """Stays the same over restarts."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, with the data it had if durable, empty otherwise."""
        self._kept = redis_server.start_on(self._run, self._program, self._directory, self._port, *self._options)

    def kill(self) -> None:
        """kill -9."""
        if self._kept:
            self._kept.kill()
        self._kept = None

    def lose_data(self) -> None:
        """What a killed one had written is gone when it is started again."""
        for path in self._directory.iterdir():
            if path.name.startswith(("appendonly", "dump")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def pause(self) -> None:
        """Stop it from answering while its connections stay open (SIGSTOP)."""
        if self._kept:
            self._kept.signal_server(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again (SIGCONT)."""
        if self._kept:
            self._kept.signal_server(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it in order; a stopped or killed one stays as it is."""
        if self._kept:
            self._kept.stop()
        self._kept = None


def start_private(run: TestRun, *, durable: bool) -> RedisProcess:
    """A running Redis of the test's own. Needs the program itself: a server behind a URL cannot be killed."""
    program = programs.find_or_install(programs.REDIS)
    if program is None:
        raise programs.ServerUnavailableError(programs.REDIS.explain())
    process = RedisProcess(run, program, durable=durable)
    process.start()
    return process
