"""Bodies seen before, recognised by all but their messages.

A client that asks again and again sends the same body with other messages. Where what stands before the messages and what
follows them are the bytes of a body that was read before, and the messages between them are by themselves a JSON array of
messages of plain text, then all else is the same too: the members, that none is there twice, what may be asked for. The array
alone has to be read.
"""

from typing import Any, Final

import msgspec

from ias.gateway.endpoints import Endpoint
from ias.gateway.json_splice import Buffer, list_members
from ias.gateway.peek import TEXT_MESSAGES
from ias.gateway.read_body import Reading, read_body

_OTHER_BYTES_MAX: Final = 16_384
"""Of what is kept of a body for as long as its connection lasts."""
_BODY_BYTES_MAX: Final = 262_144
_ANY_MESSAGES: Final = b'[{"content":""}]'


class KnownBody:
    """A body of `/v1/chat/completions` up to its messages, and from their end."""

    __slots__ = ("_other_bytes", "_prefix", "_suffix", "reading")

    def __init__(self, prefix: bytes, suffix: bytes, reading: Reading) -> None:
        self._prefix = prefix
        self._suffix = suffix
        self._other_bytes = len(prefix) + len(suffix)
        self.reading = reading

    @classmethod
    def learn(cls, body: Buffer, endpoint: Endpoint) -> "KnownBody | None":
        """The shape of a body that its endpoint takes; None where it has no messages, or a lot beside them."""
        if len(body) > _BODY_BYTES_MAX:
            return None
        messages = [member for member in list_members(body) if member.name == "messages"]
        if len(messages) != 1:
            return None
        prefix, suffix = bytes(body[: messages[0].value_start]), bytes(body[messages[0].end :])
        if len(prefix) + len(suffix) > _OTHER_BYTES_MAX:
            return None
        # Read without the messages at hand: what is kept would keep them, too.
        return cls(prefix, suffix, read_body(prefix + _ANY_MESSAGES + suffix, endpoint))

    def fits(self, body: Buffer) -> bool:
        """Whether a body is this one but for its messages."""
        prefix, suffix = self._prefix, self._suffix
        size = len(body)
        if size <= self._other_bytes or size > _BODY_BYTES_MAX:
            return False
        if not body.startswith(prefix) or not body.endswith(suffix):
            return False
        try:
            messages: list[Any] = TEXT_MESSAGES.decode(body[len(prefix) : size - len(suffix)])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return len(messages) > 0
