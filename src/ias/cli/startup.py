"""A service that cannot start, told in one line where its failure has one, and with its traceback where it has none."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ias.cli.failures import CommandError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class StartupWatch:
    """An ASGI app that passes everything on, and explains why its lifespan did not begin.

    `failure` is that explanation once there is one.
    """

    def __init__(self, app: App, explain: Callable[[BaseException], CommandError | None]) -> None:
        self._app = app
        self._explain = explain
        self.failure: CommandError | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        failed: Message | None = None

        async def hold_failure(message: Message) -> None:
            nonlocal failed
            if message["type"] == "lifespan.startup.failed":
                failed = message
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold_failure)
        except Exception as error:  # whatever kept the app from starting is explained in one line
            if failed is None:
                raise
            self.failure = self._explain(error)
        if failed is not None:
            await send({**failed, "message": self.failure.message} if self.failure else failed)
