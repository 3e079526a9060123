"""Server-sent events without I/O: fed with bytes at any split, gives whole events.

Lines end with LF, CRLF or CR and with nothing else (U+2028 inside JSON is no line end). Comments, `id` and `retry` are
dropped, and so are events without data: OpenAI's SDKs try to parse what they are given.
"""

from typing import Final, NamedTuple

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its name (None for most) and its data lines joined by LF."""

    name: bytes | None
    data: bytes


class EventTooLargeError(ValueError):
    """An event grew past the bound before it ended."""


class EventScanner:
    """Finds events. Bytes of an event that has not ended are kept, at most `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pending = bytearray()
        self._searched = 0
        self._after_cr = False
        self._at_start = True

    @property
    def is_empty(self) -> bool:
        """Whether no part of an unfinished event is held."""
        return not self._pending and not self._after_cr

    def feed(self, data: bytes) -> list[Event]:
        """The events that ended within what has arrived so far.

        Raises:
            EventTooLargeError: see there.
        """
        if not data:
            return []
        self._pending += self._normalise(data)
        if self._at_start and not self._drop_byte_order_mark():
            return []
        events = []
        while (end := self._pending.find(b"\n\n", self._searched)) >= 0:
            event = parse_event(bytes(self._pending[:end]))
            del self._pending[: end + 2]
            self._searched = 0
            if event is not None:
                events.append(event)
        self._searched = max(0, len(self._pending) - 1)
        if len(self._pending) > self._bytes_max:
            raise EventTooLargeError(f"an event is larger than {self._bytes_max} bytes")
        return events

    def _normalise(self, data: bytes) -> bytes:
        """LF as the only line end. A CR ends its line at once; an LF that follows it later is swallowed."""
        if self._after_cr:
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if data.find(b"\r") >= 0:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _drop_byte_order_mark(self) -> bool:
        """Whether the stream's first three bytes are known, and a mark among them dropped."""
        head = bytes(self._pending[:3])
        if head == _BYTE_ORDER_MARK:
            del self._pending[:3]
        elif len(head) < 3 and _BYTE_ORDER_MARK.startswith(head):
            return False
        self._at_start = False
        return True


def parse_event(block: bytes) -> Event | None:
    """The event of a block of lines; None when it carries no data."""
    if block.startswith(b"data:") and block.find(b"\n") < 0:  # what nearly every event is
        data = block[6:] if block[5:6] == b" " else block[5:]
        return Event(None, data) if data else None
    name = None
    lines = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    data = b"\n".join(lines)
    return Event(name, data) if data else None


def format_event(event: Event) -> bytes:
    """The bytes of an event, in the one form that every SDK reads."""
    data = event.data if event.data.find(b"\n") < 0 else event.data.replace(b"\n", b"\ndata: ")
    if event.name is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (event.name, data)
