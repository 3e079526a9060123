"""Comments in streams that wait for their next event, so that nobody between here and the client takes silence for death.

Off unless `IAS_GATEWAY_STREAM_COMMENT_S` is set, and then a class of its own: connections without them do not even ask.
"""

from typing import Final

from ias.gateway.connection import ServerConnection
from ias.gateway.exchange import Request
from ias.gateway.pipeline import Pipeline

_COMMENT: Final = b": keep-alive\n"
"""One line end, not two: an empty line would end an event, and some clients parse one without data as JSON."""
_COMMENT_CHUNK: Final = b"%x\r\n%b\r\n" % (len(_COMMENT), _COMMENT)


class CommentingConnection(ServerConnection):
    """A connection that speaks up in silent streams. What it sends comes between events, which are always sent whole."""

    def __init__(self, pipeline: Pipeline, connections: set[ServerConnection]) -> None:
        super().__init__(pipeline, connections)
        self._has_spoken = True
        """Whether anything was sent, or a request began, since the worker's clock last looked."""
        self._quiet_since = 0.0

    def _begin(self, request: Request) -> None:
        self._has_spoken = True
        super()._begin(request)

    def stream(self, data: bytes) -> None:
        """See Client."""
        self._has_spoken = True
        super().stream(data)

    def comment_if_quiet(self, now: float) -> None:
        """Told the time now and then by the worker's clock. A client that has yet to take what was sent gets no more."""
        if self._has_spoken:
            self._has_spoken = False
            self._quiet_since = now
        if now - self._quiet_since < self._settings.gateway_stream_comment_s or self._transport.is_closing():
            return
        exchange = self._exchange
        relay = None if exchange is None else exchange.relay
        if relay is None or self._is_paused or self._transport.get_write_buffer_size():
            return
        if relay.waits_for_event():
            self._quiet_since = now
            self._transport.write(_COMMENT_CHUNK if self.streams_chunked else _COMMENT)
