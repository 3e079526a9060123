"""Which addresses the platform's own processes connect to on somebody else's word.

Addresses that hand out a machine's own credentials are never allowed, whatever the settings say.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

_METADATA_NETWORKS = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: the metadata service of AWS, Azure, Google, OpenStack, ECS
        "fe80::/10",
        "fd00:ec2::/32",  # AWS over IPv6
        "fd20:ce::/32",  # Google over IPv6
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host agent
        "192.0.0.192/32",  # Oracle
    )
)
_THIS_NETWORK = ip_network("0.0.0.0/8")
_EMBEDDED_IPV4 = (
    IPv6Network("64:ff9b::/96"),  # NAT64
    IPv6Network("::/96"),  # IPv4-compatible
)


class AddressRefusedError(ValueError):
    """The address is not one to connect to. The text says why, of `The URL`."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The rules, with what the settings allow beyond the public Internet."""

    allow_loopback: bool
    allow_private_networks: bool

    def check(self, address: Address) -> None:
        """Raises: AddressRefusedError: see there."""
        address = _unwrap(address)
        if any(address in network for network in _METADATA_NETWORKS if network.version == address.version):
            raise AddressRefusedError("The URL leads to a link-local or metadata address, which is never allowed.")
        if address.is_loopback:
            if not self.allow_loopback:
                raise AddressRefusedError("The URL leads to this machine itself, which the settings do not allow.")
            return
        if address.is_unspecified or address.is_multicast or address.is_reserved or _is_this_network(address):
            raise AddressRefusedError("The URL's address is not one of a single server.")
        if (not address.is_global or _is_site_local(address)) and not self.allow_private_networks:
            raise AddressRefusedError("The URL leads into a private network, which the settings do not allow.")


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    low_bits = int(address) & 0xFFFF_FFFF
    if any(address in network for network in _EMBEDDED_IPV4) and low_bits > 1:  # `::` and `::1` are themselves
        return IPv4Address(low_bits)
    return address


def _is_site_local(address: Address) -> bool:
    """fec0::/10: what fc00::/7 replaced, which Python takes for the Internet's."""
    return isinstance(address, IPv6Address) and address.is_site_local


def _is_this_network(address: Address) -> bool:
    return isinstance(address, IPv4Address) and address in _THIS_NETWORK
