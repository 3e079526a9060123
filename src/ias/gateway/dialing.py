"""Connections to backends: the name is looked up, each address judged, and the connection made to the very one that passed.

The registry judges a backend's URL when it is written. A name may lead elsewhere since, by mistake or on purpose, and to a
machine's metadata service in the worst case.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

import structlog

from ias.kit.addresses import AddressPolicy, AddressRefusedError

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)

log = structlog.get_logger("ias.gateway.dialing")


class Dialer:
    """Opens connections to where the platform may send requests."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def dial(
        self, make_protocol: Callable[[], _Protocol], host: str, port: int, *, tls: ssl.SSLContext | None
    ) -> _Protocol:
        """A connection to the first address of the host that takes one. TLS is for the host's name, not the address.

        Raises:
            OSError: unknown, unreachable, refused, or at no address that may be called.
        """
        loop = asyncio.get_running_loop()
        failure = OSError(f"{host} is at no address that may be called")
        for address in await self._find_addresses(host):
            try:
                _, protocol = await loop.create_connection(
                    make_protocol, address, port, ssl=tls, server_hostname=host if tls else None
                )
            except OSError as error:
                failure = error
            else:
                return protocol
        raise failure

    async def _find_addresses(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return [
            address for address in dict.fromkeys(str(entry[4][0]) for entry in found) if self._may_call(host, address)
        ]

    def _may_call(self, host: str, address: str) -> bool:
        try:
            self._policy.check(ip_address(address))
        except AddressRefusedError as error:
            log.warning("backend_address_refused", host=host, address=address, reason=str(error))
            return False
        return True
