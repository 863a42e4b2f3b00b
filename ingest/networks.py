"""Which addresses a source may be fetched from. Contains no sockets.

Public ones, and of the others those that the operator lists for the source. What an IPv6 address
carries inside it is judged, not its wrapping.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: in place of a list: every private network
ANY_WORD = "any"


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


#: IPv6 prefixes that carry an IPv4 address in their last 32 bits: compatible, NAT64
_EMBEDDING = _networks("::/96", "64:ff9b::/96")
#: carry an IPv4 address in a place that cannot be told, or in two: NAT64 for local use, Teredo
_OPAQUE = _networks("64:ff9b:1::/48", "2001::/32")
#: nothing outside it is routed between networks; `is_global` knows only some of what lies outside
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: `is_global` of Python 3.11 is true for these: protocol assignments, 6to4 relays, documentation
_NOT_PUBLIC = _networks("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")
#: where a cloud hands its machines their credentials; `any` does not mean these
_METADATA = _networks(
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
)
#: a listed network that lets them in is at least so narrow (prefix bits, by IP version)
_NARROW = {4: 16, 6: 32}


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if _within(address, _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _parsed(text: str) -> Address:
    """Return an address, or the IPv4 address inside it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    inner = _embedded(address) if isinstance(address, ipaddress.IPv6Address) else None
    return inner or address


def is_public(text: str) -> bool:
    """Tell whether an IP address, or the IPv4 address inside it, is globally reachable."""
    address = _parsed(text)
    if _within(address, (*_OPAQUE, *_NOT_PUBLIC, *_METADATA)) or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global


def is_metadata(text: str) -> bool:
    """Tell whether a cloud may hand out credentials at an address."""
    return _within(_parsed(text), _METADATA)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The private addresses that a source may be fetched from."""

    networks: tuple[Network, ...] = ()
    any: bool = False  #: every private address, but those where clouds keep credentials

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Allowed:
        """Read networks (``10.0.0.0/8``), addresses, or ``any``; raises ValueError."""
        words = {word for text in texts for word in text.replace(",", " ").split()}
        found = {ipaddress.ip_network(word) for word in words - {ANY_WORD}}
        if any(network.prefixlen == 0 for network in found):
            raise ValueError(f"a network of all addresses is no list; write {ANY_WORD!r}")
        return cls(tuple(sorted(found, key=_order)), ANY_WORD in words)

    def __str__(self) -> str:
        """Return it as `parse` reads it: networks with commas between; empty for none."""
        return ",".join(self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """Return ``any`` and each network as text."""
        return ((ANY_WORD,) if self.any else ()) + tuple(map(str, self.networks))

    def permits(self, text: str) -> bool:
        """Tell whether an IP address may be dialled: it is public, or allowed here."""
        address = _parsed(text)
        if address.is_multicast:
            return False
        if is_public(text):
            return True
        listed = [network for network in self.networks if address in network]
        if _within(address, _METADATA):
            return any(network.prefixlen >= _NARROW[network.version] for network in listed)
        return bool(listed) or (self.any and not _within(address, _OPAQUE))


def _order(network: Network) -> tuple[int, Any]:
    return network.version, network


#: public addresses only
NONE = Allowed()
ANY = Allowed(any=True)
