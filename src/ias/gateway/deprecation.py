"""What clients of a deprecated model are told, in header lines."""

from email.utils import formatdate
from urllib.parse import quote

from ias.contracts.routes import ModelRoute


def render_notice(route: ModelRoute) -> bytes:
    """`Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link` to the successor (RFC 5829); nothing for other models."""
    if route.deprecated_at is None:
        return b""
    lines = [f"deprecation: @{route.deprecated_at}"]
    if route.sunset_at is not None:
        lines.append(f"sunset: {formatdate(route.sunset_at, usegmt=True)}")
    if route.replacement is not None:
        lines.append(f'link: </v1/models/{quote(route.replacement, safe="")}>; rel="successor-version"')
    return "\r\n".join([*lines, ""]).encode()
