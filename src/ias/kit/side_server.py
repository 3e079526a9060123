"""An app served beside what a process is there for: it leaves the process's signals alone and ends when it is told to."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

_GRACE_S = 2


class SideServer(uvicorn.Server):
    """Serves until `should_exit` is set."""

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield
