"""Where the platform may send requests: the rules for URLs that somebody gives it (a backend's, an identity provider's).

Checked when the URL is written (its text, and the addresses its name has then) and again before a service itself calls it,
where the connection goes to the very address that was checked; gateways check each address that they connect to as well.
Addresses that hand out a machine's own credentials are never allowed, whatever the settings say.
"""

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from ias.kit.addresses import Address, AddressPolicy, AddressRefusedError
from ias.kit.problems import FieldError, InvalidError

URL_LENGTH_MAX = 2048
DEFAULT_PATH = "/v1"
_DEFAULT_PORTS = {"http": 80, "https": 443}

_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_LOOKS_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)")
"""What a resolver may read as an IPv4 address although it is not written as one: `2130706433`, `0x7f.1`, `127.1`."""

_REMEMBERED_MAX = 10_000

Resolve = Callable[[str], Awaitable[list[str]]]


class EgressRefusedError(InvalidError):
    """The URL leads where the platform does not send requests."""

    def __init__(self, detail: str, *, pointer: str = "/url") -> None:
        super().__init__(detail, code="egress_refused", errors=[FieldError(pointer=pointer, detail=detail)])


class EgressPolicy:
    """The rules, with what the settings allow beyond the public Internet."""

    def __init__(self, *, allow_loopback: bool, allow_private_networks: bool, resolve: Resolve) -> None:
        self._allow_loopback = allow_loopback
        self._addresses = AddressPolicy(allow_loopback=allow_loopback, allow_private_networks=allow_private_networks)
        self._resolve = resolve

    def normalise(self, url: str) -> str:
        """The URL in its one spelling, without a slash at the end; a URL without a path gets `/v1`.

        Raises:
            EgressRefusedError: not an http(s) URL of a host that may be called. Names are judged by their text alone.
        """
        parts = _split(url)
        host = _host_of(parts)
        self._check_host(host)
        shown_host = f"[{host}]" if ":" in host else host
        port = parts.port
        place = shown_host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{shown_host}:{port}"
        return f"{parts.scheme}://{place}{parts.path.rstrip('/') or DEFAULT_PATH}"

    async def admit(self, url: str) -> str:
        """The URL in its one spelling, its name looked up besides. A name that nobody knows yet is admitted.

        Raises:
            EgressRefusedError: see `normalise`; or one of the name's addresses may not be called.
        """
        normalised = self.normalise(url)
        await self._checked_addresses(_host_of(urlsplit(normalised)))
        return normalised

    async def find_address(self, host: str) -> str | None:
        """Where to connect for a host now; None when its name is not known.

        Raises:
            EgressRefusedError: it, or one of the name's addresses, may not be called.
        """
        self._check_host(host)
        addresses = await self._checked_addresses(host)
        return addresses[0] if addresses else None

    async def _checked_addresses(self, host: str) -> list[str]:
        literal = _literal(host)
        addresses = [str(literal)] if literal else await self._resolve(host)
        for address in addresses:
            self._check_address(ip_address(address))
        return addresses

    def _check_host(self, host: str) -> None:
        literal = _literal(host)
        if literal:
            self._check_address(literal)
            return
        if not _HOST_NAME.fullmatch(host) or _LOOKS_NUMERIC.fullmatch(host):
            raise EgressRefusedError("The URL's host is neither a host name nor an IP address in its usual form.")
        if host in _METADATA_NAMES:
            raise EgressRefusedError("The URL leads to a metadata service, which is never allowed.")
        if (host == "localhost" or host.endswith(".localhost")) and not self._allow_loopback:
            raise EgressRefusedError("The URL leads to this machine itself, which the settings do not allow.")

    def _check_address(self, address: Address) -> None:
        try:
            self._addresses.check(address)
        except AddressRefusedError as error:
            raise EgressRefusedError(str(error)) from error


def system_resolver(timeout_s: float) -> Resolve:
    """Looks names up as the operating system does. An unknown name, or no answer in time, gives no address."""

    async def resolve(host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a timeout is an OSError too
            return []
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    return resolve


def remembering(resolve: Resolve, ttl_s: float) -> Resolve:
    """The same, asked again for a name only after a while. Whoever asks judges the addresses each time all the same."""
    remembered: dict[str, tuple[float, list[str]]] = {}

    async def resolve_or_remember(host: str) -> list[str]:
        now = time.monotonic()
        known = remembered.get(host)
        if known and known[0] > now:
            return known[1]
        addresses = await resolve(host)
        if len(remembered) >= _REMEMBERED_MAX:
            remembered.clear()
        if addresses:
            remembered[host] = (now + ttl_s, addresses)
        return addresses

    return resolve_or_remember


def _split(url: str) -> SplitResult:
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>^`{|}'):
        raise EgressRefusedError("The URL holds characters that a URL cannot hold, or is too long.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EgressRefusedError("The URL cannot be parsed.") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise EgressRefusedError("The URL's scheme is neither http nor https.")
    if "@" in parts.netloc:
        raise EgressRefusedError("The URL holds user information, which everybody could read who reads the URL.")
    if "?" in url or "#" in url:
        raise EgressRefusedError("The URL holds a query or a fragment; a base URL has neither.")
    if port == 0 or not parts.hostname:
        raise EgressRefusedError("The URL names no host, or a port that cannot be.")
    return parts


def _host_of(parts: SplitResult) -> str:
    return (parts.hostname or "").removesuffix(".")


def _literal(host: str) -> Address | None:
    """The address that the text writes in its usual form; a zone (`%eth0`) is none."""
    if "%" in host:
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None
