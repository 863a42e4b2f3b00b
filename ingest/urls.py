"""URLs: what we fetch, where a redirect may lead, and how a URL is shown. Contains no I/O."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from ingest.errors import FetchError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def _hidden(query: str) -> str:
    names = [part.partition("=") for part in query.split("&")]
    return "&".join(f"{name}=***" if equals else "***" for name, equals, _ in names)


def redact(url: str) -> str:
    """Return a URL fit for logs: no user, no password, no query values, no fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "<malformed url>"
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    query = _hidden(parts.query) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def checked(url: str) -> SplitResult:
    """Split a URL that may be fetched; raise FetchError ``fetch.bad_url`` for any other."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchError("fetch.bad_url", "the URL is malformed") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise FetchError(
            "fetch.bad_url",
            f"{redact(url)} is not an http or https URL with a host",
            "feeds are fetched over http or https only",
        )
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _with_user(parts: SplitResult, userinfo: str) -> str:
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{userinfo}@{host}" if userinfo else host
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))


def host(url: str) -> str:
    """Return a URL's host in lower case; empty when there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def base(url: str) -> str:
    """Return the address that a document's relative links start from, without its secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def absolute(link: str, base: str | None) -> str:
    """Return a document's link as an address; empty when there is none, or a malformed one."""
    try:
        return urljoin(base or "", link.strip()) if link.strip() else ""
    except ValueError:  # a malformed host
        return ""


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    The user and password of the first URL go along within its origin only; those that the server
    puts in are dropped. Raises FetchError ``fetch.redirect_refused`` for what is not http or
    https, and for a step from https down to http.
    """
    try:
        old, new = checked(url), checked(urljoin(url, location))
    except (FetchError, ValueError):
        raise FetchError(
            "fetch.redirect_refused", f"{redact(url)} redirects to {redact(location)}"
        ) from None
    if old.scheme == "https" and new.scheme == "http":
        raise FetchError(
            "fetch.redirect_refused", f"{redact(url)} redirects from https down to http"
        )
    userinfo = old.netloc.rpartition("@")[0] if _origin(old) == _origin(new) else ""
    return _with_user(new, userinfo)
