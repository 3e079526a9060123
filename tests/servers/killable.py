"""PostgreSQL and RabbitMQ of a test's own, to be killed and started again with the data they had."""

import time

from tests.servers import postgres_server, programs, rabbitmq_server
from tests.servers.launch import Kept, ServerStartError, free_port, stop_keeper
from tests.servers.run import TestRun

_RESTART_PATIENCE_S = 30.0


class PostgresProcess:
    """What it has committed survives kill -9: the kernel has it. Nothing here is proof against a loss of power."""

    def __init__(self, run: TestRun) -> None:
        program = programs.find_or_install(programs.POSTGRES)
        if program is None:
            raise programs.ServerUnavailableError(programs.POSTGRES.explain())
        self._run, self._program = run, program
        self._data = postgres_server.prepare(program, run.new_directory("postgres-private"))
        self._port = free_port()
        self._kept: Kept | None = None

    @property
    def url(self) -> str:
        """Stays the same over restarts."""
        return postgres_server.server_url(self._port)

    def start(self) -> None:
        """Start it; what a killed one has left in memory has to be gone first."""
        deadline = time.monotonic() + _RESTART_PATIENCE_S
        while True:
            try:
                self._kept = postgres_server.start_on(
                    self._run, self._program, self._data, self._port, "synchronous_commit=on"
                )
                return
            except ServerStartError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        """kill -9 of the server; its children notice and end."""
        if self._kept:
            self._kept.kill()
        self._kept = None

    def stop(self) -> None:
        """Stop it; a killed one stays as it is."""
        if self._kept:
            self._kept.stop()
        self._kept = None


class RabbitProcess:
    """A broker with a directory and ports of its own."""

    def __init__(self, run: TestRun) -> None:
        script = programs.find_or_install(programs.RABBITMQ)
        if script is None:
            raise programs.ServerUnavailableError(programs.RABBITMQ.explain())
        self._node = rabbitmq_server.prepare(run, script, run.new_directory("rabbitmq-private"))
        self._kept: Kept | None = None

    @property
    def url(self) -> str:
        """Stays the same over restarts."""
        return self._node.broker.url

    def start(self) -> None:
        """Start it, with the queues it had."""
        self._kept = self._node.start()

    def kill(self) -> None:
        """kill -9 of the node and all that it started."""
        if self._kept:
            self._kept.kill()
        self._kept = None

    def stop(self) -> None:
        """Stop it in order, and its name service."""
        if self._kept:
            self._kept.stop()
        self._kept = None
        stop_keeper(self._node.names_pid)
