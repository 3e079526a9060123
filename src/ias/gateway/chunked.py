"""HTTP/1.1 chunked bodies without I/O: fed with whatever arrived, at any split."""

from typing import Final

_SIZE_LINE_BYTES_MAX: Final = 1024
_TRAILER_BYTES_MAX: Final = 16_384
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


class ChunkedError(ValueError):
    """The framing is broken; nothing after it can be trusted."""


def parse_size_line(line: bytes | bytearray) -> int:
    """The size a chunk announces; extensions after `;` mean nothing to us.

    Raises:
        ChunkedError: not plain hexadecimal.
    """
    digits = line.split(b";", 1)[0].strip(b" \t") if line.find(b";") >= 0 else line
    if not digits or len(digits) > 15 or not _HEX_DIGITS.issuperset(digits):
        raise ChunkedError("a chunk's size is not hexadecimal")
    return int(digits, 16)


class ChunkedDecoder:
    """Takes chunk frames, gives their payload. `ended` is true after the last chunk and its trailer."""

    def __init__(self) -> None:
        self.ended = False
        self._pending = bytearray()
        self._payload_left = 0
        self._in_trailer = False

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a chunk's size line."""
        return not self._pending and self._payload_left == 0 and not self._in_trailer

    def feed(self, data: bytes) -> bytes:
        """The payload found in what has arrived so far.

        Raises:
            ChunkedError: broken framing, or bytes after the end.
        """
        if self.ended:
            raise ChunkedError("bytes after the last chunk")
        self._pending += data
        payload = bytearray()
        while self._pending and self._advance(payload):
            pass
        return bytes(payload)

    def _advance(self, payload: bytearray) -> bool:
        """Take one piece off what is pending; False when it needs more bytes."""
        if self.ended:
            raise ChunkedError("bytes after the last chunk")
        if self._in_trailer:
            return self._take_trailer_line()
        if self._payload_left:
            return self._take_payload(payload)
        return self._take_size_line()

    def _take_size_line(self) -> bool:
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > _SIZE_LINE_BYTES_MAX:
                raise ChunkedError("a chunk's size line does not end")
            return False
        size = parse_size_line(self._pending[:end])
        del self._pending[: end + 2]
        if size == 0:
            self._in_trailer = True
        else:
            self._payload_left = size + 2  # with the CRLF that ends the payload
        return True

    def _take_payload(self, payload: bytearray) -> bool:
        part = self._pending[: self._payload_left]
        del self._pending[: len(part)]
        before = self._payload_left
        self._payload_left -= len(part)
        content = max(0, before - 2)
        payload += part[:content]
        ending = part[content:]
        expected = b"\r\n"[2 - min(before, 2) :]
        if not expected.startswith(ending):
            raise ChunkedError("a chunk is longer than its size")
        return True

    def _take_trailer_line(self) -> bool:
        end = self._pending.find(b"\r\n")
        if end < 0:
            if len(self._pending) > _TRAILER_BYTES_MAX:
                raise ChunkedError("the trailer does not end")
            return False
        del self._pending[: end + 2]
        if end == 0:
            self.ended = True
        return True
