"""Which addresses a peer may make us send packets to, and which are our own.

Addresses come from peers through the session: authenticated, but not trusted. A member of the room must not be able
to point our connections at loopback, cloud metadata, multicast or system ports.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from typing import Final

__all__ = ["dialable", "forbidden", "own_addresses", "same_host_tag"]

MIN_PORT: Final = 1024  # nobody's peer listens on a system port, and much else does
MAX_OWN: Final = 7  # with loopback, and two families, below what a peer takes
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_IPV4_IN_IPV6: Final = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))  # compatible, NAT64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def dialable(text: str, port: int, *, same_host: bool) -> bool:
    """Tell whether an honest peer could listen there; loopback only for a peer on this very machine.

    Only plain numeric forms count: anything else (names, decimal or octal forms, zones) is refused.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if not MIN_PORT <= port <= 65535:
        return False
    if same_host and text in ("127.0.0.1", "::1"):
        return True
    return not forbidden(address)


def forbidden(address: Address) -> bool:
    """Tell whether packets must never go there on a peer's word, in whatever form it is written."""
    inner = _embedded(address) if isinstance(address, ipaddress.IPv6Address) else None
    return _forbidden(address) or (inner is not None and _forbidden(inner))


def own_addresses() -> list[str]:
    """Return this machine's addresses that a peer may reach, IPv4 first, at most MAX_OWN; blocking for a moment."""
    import ifaddr

    found: list[Address] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                continue
            if not forbidden(address) and address not in found:
                found.append(address)
    return [str(address) for address in sorted(found, key=lambda address: address.version)][:MAX_OWN]


def same_host_tag(key: bytes) -> bytes:
    """Return a tag that a peer computes alike if, and only if, it runs in this network namespace of this machine.

    It is an HMAC under a key of the session: the boot id behind it is never shown. Empty where the system has none;
    then peers on one machine meet at another address than loopback.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read(64).strip()
        space = os.readlink("/proc/self/ns/net").encode()
    except OSError:
        return b""
    return hmac.new(key, b"same host" + boot + space, hashlib.sha256).digest()


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to this IPv6 address may end up at (RFC 4291, 3056, 6052)."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _IPV4_IN_IPV6):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _forbidden(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        special = address in _THIS_NETWORK or address.is_reserved  # 240/4, with the broadcast address
    else:
        special = address.is_site_local or address.scope_id is not None
    return special or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
