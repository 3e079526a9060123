"""Stage 2, receive: let the body come, now that its sender is known, and undo its encoding."""

import zlib

from ias.gateway.context import Gateway
from ias.gateway.errors import body_too_large, invalid, unsupported_encoding
from ias.gateway.exchange import NEXT, WAIT, Exchange, Progress, Request
from ias.gateway.settings import GatewaySettings


def receive(exchange: Exchange, gateway: Gateway) -> Progress:
    """Wait until the body is complete; refuse one over the limit before it has all come."""
    request = exchange.request
    if not request.is_complete:
        limit = gateway.settings.gateway_body_bytes_max
        if (request.content_length or 0) > limit or request.body_bytes > limit:
            raise body_too_large(gateway.settings)
        exchange.continuation = receive
        exchange.client.expect_body()
        return WAIT
    if request.body_bytes > gateway.settings.gateway_body_bytes_max:
        raise body_too_large(gateway.settings)
    if b"content-encoding" in request.headers:
        request.body = decode_body(request, gateway.settings)
    return NEXT


def decode_body(request: Request, settings: GatewaySettings) -> bytes | bytearray:
    """The body without its Content-Encoding; never more than the limit, whatever it would unpack to.

    Raises:
        Refusal: 413, 415, or 400 for what does not unpack.
    """
    encoding = request.headers[b"content-encoding"].strip().lower()
    if encoding in (b"identity", b""):
        return request.body
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise unsupported_encoding(encoding.decode("latin-1"))
    limit = settings.gateway_body_bytes_max
    unpacker = zlib.decompressobj(wbits=47 if encoding != b"deflate" else zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(request.body, limit + 1)
    except zlib.error as error:
        raise invalid("The request body could not be decompressed.") from error
    if len(body) > limit:
        raise body_too_large(settings)
    if not unpacker.eof:
        raise invalid("The request body could not be decompressed: it is cut short.")
    return body
