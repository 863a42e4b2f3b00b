"""The guard between a feed's URL and the network: which addresses may be dialled, and how long.

Feeds are written by strangers, and a name that resolves to this machine or its neighbours would
let them read what only we can reach. The check sits where the connection is made, after the name
is resolved and on the very address that is dialled, so a second DNS answer cannot slip past it.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2

from ingest.errors import FetchError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: IPv6 prefixes that carry an IPv4 address in their last 32 bits: compatible, NAT64
_EMBEDDING = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_public(text: str) -> bool:
    """Tell whether an IP address, and any IPv4 address inside it, is globally reachable."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and (inner := _embedded(address)):
        # Python 3.11 calls these prefixes global whatever they carry.
        address = inner
    return address.is_global and not address.is_multicast


def _lookup(host: str, port: int, answer: queue.SimpleQueue[list[str] | OSError]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answer.put(error if isinstance(error, OSError) else OSError(str(error)))
    else:
        answer.put(list(dict.fromkeys(str(item[4][0]) for item in found)))


def resolve(host: str, port: int, timeout: float) -> list[str]:
    """Return a host's addresses.

    Raises httpcore2.ConnectTimeout when no answer comes in `timeout` seconds, and
    httpcore2.ConnectError when there is none.
    """
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()
    # The system's resolver takes no timeout; a daemon thread can be left behind.
    threading.Thread(target=_lookup, args=(host, port, answer), daemon=True).start()
    try:
        found = answer.get(timeout=timeout)
    except queue.Empty:
        raise httpcore2.ConnectTimeout("the name was not resolved in time") from None
    if isinstance(found, OSError):
        raise httpcore2.ConnectError(f"the name does not resolve ({found.strerror})") from found
    return found


class Deadline:
    """The end of a whole request, on the monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start counting `seconds` now."""
        self._clock = clock
        self._end = clock() + seconds

    def clip(self, timeout: float | None) -> float:
        """Return the shorter of a timeout and the time left; raise ReadTimeout when none is."""
        left = self._end - self._clock()
        if left <= 0:
            raise httpcore2.ReadTimeout("the whole request took too long")
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore2.NetworkStream):
    """A connection whose every wait ends with the request's deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.clip(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        limit = self._deadline.clip(timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore2.NetworkBackend):
    """Dial public addresses only, within a deadline.

    A host with one address that is not public is refused whole: mixed answers are how rebinding
    begins. Raises FetchError ``fetch.refused_address``.
    """

    def __init__(self, deadline: Deadline, allow_private: bool) -> None:
        """Take the request's deadline and whether private addresses are allowed."""
        self._deadline = deadline
        self._allow_private = allow_private
        self._dialler = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address that answers."""
        addresses = resolve(host, port, self._deadline.clip(timeout))
        if not self._allow_private:
            _check(host, addresses)
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in addresses:
            limit = self._deadline.clip(timeout)
            try:
                stream = self._dialler.connect_tcp(
                    address, port, limit, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        raise failure


def _check(host: str, addresses: list[str]) -> None:
    refused = [address for address in addresses if not is_public(address)]
    if refused:
        raise FetchError(
            "fetch.refused_address",
            f"{host} resolves to {refused[0]}, which is not a public address",
            "set allow_private on this source if it is one of your own",
        )
