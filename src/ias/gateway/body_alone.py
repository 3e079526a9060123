"""Parsing what is left of a message whose head was read by another parser."""

from collections.abc import Callable
from typing import NamedTuple

from ias.gateway.exchange import Request


class BodyAlone(NamedTuple):
    """What httptools is given to tell of bodies and their ends, and of nothing else."""

    on_body: Callable[[bytes], None]
    on_message_complete: Callable[[], None]


def head_of_body_alone(request: Request) -> bytes:
    """A head that makes a parser take what follows for the body of the request; without one it is complete at once."""
    if request.is_chunked:
        return b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (request.content_length or 0)
