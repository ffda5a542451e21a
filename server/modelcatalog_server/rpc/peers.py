"""Where a call comes from."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

#: Of what a caller in another process of this machine comes from.
LOCAL = "local"
# Who has an IPv6 network has 2^64 addresses in it.
_NETWORK_BITS = 64


def address_of(peer: str) -> str:
    """Return the address that grpc calls ``ipv4:127.0.0.1:50`` or ``ipv6:%5B::1%5D:50``, for limits.

    :data:`LOCAL` for loopback and Unix sockets; of IPv6 the network.
    """
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return LOCAL
    host = rest.rpartition(":")[0]
    if kind == "ipv4":
        return LOCAL if host.startswith("127.") else host
    return _network_of(unquote(host).strip("[]").partition("%")[0])


def _network_of(host: str) -> str:
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return LOCAL
    if isinstance(address, IPv6Address):
        shift = address.max_prefixlen - _NETWORK_BITS
        return f"{IPv6Address(int(address) >> shift << shift)}/{_NETWORK_BITS}"
    return str(address)
