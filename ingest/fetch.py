"""Fetching a feed over HTTP: one bounded, guarded, conditional GET."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version

import httpcore2
import httpx2

from ingest import body, networks
from ingest.address import Deadline, GuardedBackend, HeadBudget
from ingest.errors import FetchError
from ingest.networks import NONE, Allowed
from ingest.urls import checked, redact, redirected

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: redirects that say "from now on"
_PERMANENT_REDIRECTS = frozenset({301, 308})
#: a server may not make us hammer it, nor silence a feed for more than a day
_RETRY_AFTER_SECONDS = (60.0, 24 * 3600.0)
#: longer validators are not worth keeping
_VALIDATOR_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fetch may cost."""

    total_seconds: float = 60.0  #: from the first name lookup to the last byte, redirects included
    connect_seconds: float = 10.0  #: one connection attempt
    read_seconds: float = 20.0  #: one wait for bytes
    raw_bytes: int = 5 * 1024 * 1024  #: body as sent
    decoded_bytes: int = 15 * 1024 * 1024  #: body after decompression
    inflation: int = 100  #: decoded bytes for each byte sent, counted from 1 MiB on
    head_bytes: int = 64 * 1024  #: status line and headers of one answer
    redirects: int = 5  #: steps followed


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered: 2xx with a body, or 304 without."""

    status: int
    url: str = field(repr=False)  #: where the last redirect led; may hold credentials
    body: bytes = field(repr=False)  #: decoded; empty for 304
    content_type: str | None
    etag: str | None
    last_modified: str | None
    retry_after: float | None  #: seconds, clamped to [60, 86400]
    #: where the URL was said to have moved for good; may hold credentials
    moved_to: str | None = field(default=None, repr=False)

    @property
    def not_modified(self) -> bool:
        """Tell whether the server said that nothing changed."""
        return self.status == 304


class _Stream(httpx2.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


class _Transport(httpx2.BaseTransport):
    """Carry httpx2 requests over connections that the guard makes."""

    def __init__(self, backend: GuardedBackend, tls: ssl.SSLContext, head: HeadBudget) -> None:
        self._pool = httpcore2.ConnectionPool(ssl_context=tls, network_backend=backend)
        self._head = head

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        self._head.begin()
        answer = self._pool.handle_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        self._head.end()
        assert isinstance(answer.stream, Iterable)
        return httpx2.Response(
            answer.status,
            headers=answer.headers,
            stream=_Stream(answer.stream),
            extensions={"network_stream": answer.extensions["network_stream"]},
        )

    def close(self) -> None:
        self._pool.close()


def user_agent() -> str:
    """Return how we introduce ourselves: ``wised/VERSION``."""
    try:
        return f"wised/{version('wised')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "wised/0"


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, clamped to [60, 86400].

    It is a number of seconds or an HTTP date; None when absent or neither.
    """
    if value is None:
        return None
    text = value.strip()
    low, high = _RETRY_AFTER_SECONDS
    if re.fullmatch(r"[+-]?[0-9]+", text):
        # More digits than a day of seconds has say "long", and int() need not read them all.
        seconds = float(text[:12])
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - now).total_seconds()
    return min(max(seconds, low), high)


@contextmanager
def _translated(url: str, limits: Limits) -> Iterator[None]:
    """Wrap the client's own errors, whose texts may hold the URL, once."""
    shown = redact(url)
    try:
        yield
    except (httpcore2.TimeoutException, httpx2.TimeoutException) as error:
        raise FetchError(
            "fetch.timeout", f"{shown} did not answer within {limits.total_seconds:g} s"
        ) from error
    except (httpcore2.ConnectError, httpx2.ConnectError) as error:
        raise FetchError("fetch.connect", f"no connection to {shown}: {error}") from error
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise FetchError("fetch.bad_url", f"{shown} is not a URL that can be fetched") from error
    except (
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.UnsupportedProtocol,
        httpx2.HTTPError,
    ) as error:
        raise FetchError(
            "fetch.broken", f"the answer of {shown} broke off or is not HTTP"
        ) from error


def _tls(ca_file: str | None) -> ssl.SSLContext:
    # Proxies and certificates come from the configuration, never from the environment.
    context = httpx2.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise FetchError(
                "fetch.ca_file",
                f"{ca_file} cannot be read as certificates",
                "set [ingest] ca_file to a PEM file, or leave it out",
            ) from error
    return context


def _client(limits: Limits, allowed: Allowed, ca_file: str | None) -> httpx2.Client:
    # At INFO it logs each URL as it is, user and password included.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    head = HeadBudget(limits.head_bytes)
    backend = GuardedBackend(Deadline(limits.total_seconds), allowed, head)
    return httpx2.Client(
        transport=_Transport(backend, _tls(ca_file), head),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(limits.read_seconds, connect=limits.connect_seconds),
        headers={"User-Agent": user_agent(), "Accept-Encoding": "gzip"},
    )


def _status_error(answer: httpx2.Response, url: str, retry_after: float | None) -> FetchError:
    status, shown = answer.status_code, redact(url)
    if status == 410:
        return FetchError(
            "fetch.gone",
            f"{shown} is gone for good (410)",
            "wised source set-url if it has moved, resume to ask once more, or remove",
        )
    hint = "check the source's URL and credentials" if status in (401, 403, 404) else None
    busy = checked(url).hostname if status == 429 and _is_public(answer) else None
    code = f"fetch.status_{status}"
    return FetchError(code, f"{shown} answered {status}", hint, retry_after, busy)


def _is_public(answer: httpx2.Response) -> bool:
    """Tell whether an answer came from a public address."""
    try:
        peer = answer.extensions["network_stream"].get_extra_info("server_addr")
    except OSError:  # the connection is gone
        return False
    return networks.is_public(peer[0])


def _validator(answer: httpx2.Response, name: str) -> str | None:
    """Return a validator that can be sent back as it came; None for none.

    A server that says ``Expires: 0`` wants no caching, and its validators are often wrong.
    """
    values = answer.headers.get_list(name)
    if len(values) != 1 or answer.headers.get("expires", "").strip() in ("0", "-1"):
        return None
    fits = values[0].isascii() and values[0].isprintable() and len(values[0]) <= _VALIDATOR_CHARS
    return values[0] if values[0] and fits else None


def _answered(
    answer: httpx2.Response, url: str, limits: Limits, conditional: bool, now: datetime
) -> Response:
    status = answer.status_code
    retry_after = parse_retry_after(answer.headers.get("retry-after"), now)
    if status == 304 and not conditional:
        raise FetchError(
            "fetch.status_304", f"{redact(url)} answered 304 to a request without conditions"
        )
    if status != 304 and (not answer.is_success or status == 206):
        raise _status_error(answer, url, retry_after)
    content = b"" if status == 304 else _content(answer, limits)
    return Response(
        status=status,
        url=url,
        body=content,
        content_type=answer.headers.get("content-type"),
        etag=_validator(answer, "etag"),
        last_modified=_validator(answer, "last-modified"),
        retry_after=retry_after,
    )


def _content(answer: httpx2.Response, limits: Limits) -> bytes:
    encoding = answer.headers.get("content-encoding", "")
    caps = (limits.raw_bytes, limits.decoded_bytes, limits.inflation)
    return body.read(answer.iter_raw(), encoding, *caps)


def _follow(
    client: httpx2.Client, url: str, headers: dict[str, str], limits: Limits, now: datetime
) -> Response:
    asked, moved_to, for_good = url, None, True
    for _ in range(limits.redirects + 1):
        with _translated(url, limits), client.stream("GET", url, headers=headers) as answer:
            location = answer.headers.get("location")
            if answer.status_code not in _REDIRECTS or not location:
                found = _answered(answer, url, limits, bool(headers), now)
                return replace(found, moved_to=None if moved_to == asked else moved_to)
            # What lies behind a temporary redirect is no new address, however it goes on.
            for_good = for_good and answer.status_code in _PERMANENT_REDIRECTS
        url = redirected(url, location)
        moved_to = url if for_good else moved_to
    raise FetchError(
        "fetch.redirect_loop", f"more than {limits.redirects} redirects, the last to {redact(url)}"
    )


def fetch(
    url: str,
    *,
    etag: str | None = None,
    last_modified: str | None = None,
    limits: Limits | None = None,
    allowed: Allowed = NONE,
    ca_file: str | None = None,
    now: datetime | None = None,
) -> Response:
    """Fetch a feed, or learn that it has not changed since the validators were given.

    `ca_file` holds certificates (PEM) that are trusted beside the usual ones. `now` (aware;
    default: the clock) only turns a Retry-After date into seconds. Raises FetchError.
    """
    limits = limits or Limits()
    checked(url)
    conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    headers = {name: value for name, value in conditions.items() if value}
    with _client(limits, allowed, ca_file) as client:
        return _follow(client, url, headers, limits, now or datetime.now(UTC))
