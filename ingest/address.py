"""The guard between a feed's URL and the network: what may be dialled, how long, how much.

Feeds are written by strangers, and a name that resolves to this machine or its neighbours would
let them read what only we can reach. The check sits where the connection is made, after the name
is resolved and on the very address that is dialled, so a second DNS answer cannot slip past it.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2

from ingest import networks
from ingest.errors import FetchError
from ingest.networks import Allowed


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


class HeadBudget:
    """The bytes that the head of an answer may take, interim answers before it included."""

    def __init__(self, limit: int) -> None:
        """Take the limit in bytes; nothing is counted before `begin`."""
        self._limit = limit
        self._left: int | None = None

    def begin(self) -> None:
        """Count from now on: a request was made."""
        self._left = self._limit

    def end(self) -> None:
        """Stop counting: the head is complete."""
        self._left = None

    def clip(self, max_bytes: int) -> int:
        """Return how much may be read; raise FetchError ``fetch.headers_too_large`` for nothing."""
        if self._left == 0:
            raise FetchError(
                "fetch.headers_too_large", f"the answer's headers are over {self._limit} bytes"
            )
        return max_bytes if self._left is None else min(max_bytes, self._left)

    def spend(self, count: int) -> None:
        """Note what was read."""
        if self._left is not None:
            self._left -= count


class _Stream(httpcore2.NetworkStream):
    """A connection whose every wait ends with the request's deadline."""

    def __init__(
        self, stream: httpcore2.NetworkStream, deadline: Deadline, head: HeadBudget
    ) -> None:
        self._stream = stream
        self._deadline = deadline
        self._head = head

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found = self._stream.read(self._head.clip(max_bytes), self._deadline.clip(timeout))
        self._head.spend(len(found))
        return found

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
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, limit)
        except httpcore2.ConnectError as error:
            raise _tls_error(error, server_hostname) or error from error.__cause__
        return _Stream(stream, self._deadline, self._head)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _tls_error(error: httpcore2.ConnectError, host: str | None) -> FetchError | None:
    """Return what to tell of a TLS handshake that failed; None when the connection broke off."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(
            "fetch.certificate",
            f"the certificate of {host} is not trusted: {cause.verify_message}",
            "the server's owner must mend it; [ingest] ca_file adds an authority of your own",
        )
    if isinstance(cause, ssl.SSLError):
        return FetchError("fetch.tls", f"no TLS connection to {host} ({cause.reason})")
    return None


class GuardedBackend(httpcore2.NetworkBackend):
    """Dial public addresses, and private ones that are allowed, within a deadline.

    A host with one address that may not be dialled is refused whole: mixed answers are how
    rebinding begins. Raises FetchError ``fetch.refused_address``.
    """

    def __init__(self, deadline: Deadline, allowed: Allowed, head: HeadBudget) -> None:
        """Take the request's deadline, the private addresses it may reach and its head's size."""
        self._deadline = deadline
        self._allowed = allowed
        self._head = head
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
        _check(host, addresses, self._allowed)
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
                return _Stream(stream, self._deadline, self._head)
        raise failure


def _check(host: str, addresses: list[str], allowed: Allowed) -> None:
    refused = [address for address in addresses if not allowed.permits(address)]
    if not refused:
        return
    if networks.is_metadata(refused[0]):
        hint = f"clouds keep credentials there; --allow-private {refused[0]} if you mean it"
    else:
        hint = f"add the source with --allow-private {refused[0]} if that is one of your own"
    raise FetchError(
        "fetch.refused_address",
        f"{host} resolves to {refused[0]}, which this source may not be fetched from",
        hint,
    )
