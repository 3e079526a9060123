"""Message heads seen before, recognised by their bytes.

A client sends one head again and again, different in the length of its body alone, and so does a backend for as long as
the second lasts that its Date names. A head the parser has accepted once, with other digits of Content-Length, is
accepted again without parsing it: two comparisons instead of a dozen callbacks.
"""

from typing import Final

_LENGTH_NAME: Final = b"\r\ncontent-length:"
_HEAD_BYTES_MAX: Final = 4096
_DIGITS_MAX: Final = 8


class KnownHead:
    """A head up to the digits of its Content-Length, and from there to its end."""

    __slots__ = ("_digits_start", "_other_bytes", "_prefix", "_suffix")

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self._prefix = prefix
        self._suffix = suffix
        self._digits_start = len(prefix)
        self._other_bytes = len(prefix) + len(suffix)

    @classmethod
    def learn(cls, data: bytes, content_length: int) -> "KnownHead | None":
        """The head that `data` begins with, which a parser has read as one with this Content-Length.

        None where the length is not told once and plainly, where the head is long, or where `data` holds more than one
        message: what follows must be this message's body.
        """
        end = data.find(b"\r\n\r\n", 0, _HEAD_BYTES_MAX) + 4
        if end < 4 or len(data) - end > content_length:
            return None
        lowered = data[:end].lower()
        if lowered.count(b"content-length") != 1:
            return None
        start = lowered.find(_LENGTH_NAME) + len(_LENGTH_NAME)
        if start < len(_LENGTH_NAME):
            return None
        start += data[start:end].startswith(b" ")
        digits_end = data.find(b"\r\n", start)
        if data[start:digits_end] != b"%d" % content_length:
            return None
        return cls(data[:start], data[digits_end:end])

    def find_body(self, data: bytes) -> bytes | None:
        """The body, when `data` is this head and then the whole body it tells of, no more; else None.

        The length is worked out rather than read: what `data` has beyond the rest of the head are the digits and the body.
        (Where the digits make that number one digit longer the length comes out wrong, and the answer is None.)
        """
        beyond = len(data) - self._other_bytes
        length = beyond - len(str(beyond))
        head = b"%b%d%b" % (self._prefix, length, self._suffix)
        if length > 0 and len(data) - len(head) == length and data.startswith(head):
            return data[len(head) :]
        return None

    def match(self, data: bytes) -> tuple[int, int] | None:
        """Where the body begins and how long it will be, when `data` begins with this head; else None."""
        if not data.startswith(self._prefix):
            return None
        start = self._digits_start
        end = data.find(b"\r", start, start + _DIGITS_MAX + 1)
        if end < 0:
            return None
        digits = data[start:end]
        if not digits.isdigit() or not data.startswith(self._suffix, end):
            return None
        return end + len(self._suffix), int(digits)
