"""The replica as a process: loading before it listens, draining before it ends, and faults of its listener."""

import asyncio
import logging
import socket
import sys

import uvicorn

from ias.engine.faults import TornConnectionError
from ias.engine.request_log import RequestLog
from ias.engine.server import build_app
from ias.engine.settings import EngineSettings

_TICK_S = 0.1


def serve(host: str, port: int, settings: EngineSettings, *, access_log: bool = True) -> None:
    """Serve until SIGTERM or SIGINT. Then nothing new is taken, and answers under way have `drain_timeout_s` to end.

    Raises:
        ValueError: the settings contradict each other.
    """
    listener = _Listener()
    replica = build_app(settings, listener.refuse)
    app = RequestLog(replica, sys.stderr) if access_log else replica
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,  # type: ignore[arg-type]  # seconds; fractions work
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_fault)
    listener.server = _Server(config, settings.startup_s)
    if settings.faults.refuse_connections_s:
        listener.refuse(settings.faults.refuse_connections_s)
    listener.server.run()


class _Server(uvicorn.Server):
    """A server that listens only after a while, and can stop listening for a while."""

    def __init__(self, config: uvicorn.Config, startup_s: float) -> None:
        super().__init__(config)
        self._startup_s = startup_s
        self.refuse_s = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, then listen; a signal in the meantime ends it."""
        loop = asyncio.get_running_loop()
        ready = loop.time() + self._startup_s
        while loop.time() < ready and not self.should_exit:  # noqa: ASYNC110  # uvicorn's signal handler sets a flag
            await asyncio.sleep(min(_TICK_S, ready - loop.time()))
        if not self.should_exit:
            await super().startup(sockets)
            self.config.port = self.servers[0].sockets[0].getsockname()[1]  # where it listens again after a pause

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.refuse_s:
            wait_s, self.refuse_s = self.refuse_s, 0.0
            await self._refuse(wait_s)
        return await super().on_tick(counter)

    async def _refuse(self, wait_s: float) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # idle ones now, the others after their answer
        self._startup_s = wait_s
        await self.startup()


class _Listener:
    """What faults know of the server."""

    server: _Server | None = None

    def refuse(self, duration_s: float) -> None:
        """From the next tick on, connections are refused for so long."""
        if self.server is not None:
            self.server.refuse_s = duration_s


def _is_no_fault(record: logging.LogRecord) -> bool:
    """Connections that were to be torn are not worth a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, TornConnectionError)
