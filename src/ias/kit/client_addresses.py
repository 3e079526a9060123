"""Who is at the other end: the peer of the connection, or whom trusted proxies say they forward for."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

Networks = Sequence[IPv4Network | IPv6Network]


def find_client_address(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """The nearest address that no trusted proxy has. `forwarded_for` are the values of `X-Forwarded-For`, as they came.

    Each proxy adds whom it got the request from at the end, so what stands before the first untrusted address is hearsay.
    """
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    address = peer
    while hops and _is_trusted(address, trusted):
        said = hops.pop()
        if not _is_address(said):
            break
        address = said
    return address


def _is_trusted(address: str, trusted: Networks) -> bool:
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
