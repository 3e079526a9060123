"""What browsers need to see on answers, for the origins that may call the API."""

from ias.gateway.exchange import Request

_EXPOSED_HEADERS = b", ".join(
    (
        b"x-request-id",
        b"openai-processing-ms",
        *(
            b"x-ratelimit-%b-%b" % (what, of)
            for of in (b"requests", b"tokens")
            for what in (b"limit", b"remaining", b"reset")
        ),
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"x-ias-denied-by",
        b"deprecation",
        b"sunset",
        b"link",
    )
)


def cors_headers(request: Request, origins: tuple[str, ...]) -> bytes:
    """What a browser needs to see on an answer; nothing for origins that are not allowed."""
    origin = request.headers[b"origin"]
    if "*" not in origins and origin.decode("latin-1") not in origins:
        return b""
    return b"access-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: %b\r\n" % (
        origin,
        _EXPOSED_HEADERS,
    )
