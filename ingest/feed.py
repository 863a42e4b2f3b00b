"""Feed documents to entries: RSS and Atom here, JSON in `ingest.json_feed`.

The parsers see bytes in memory and nothing else. Hostile bytes can make them slow and large, so
the daemon runs `parse` in a process of its own (`ingest.isolated`).
"""

from __future__ import annotations

import codecs
import io
import re
import xml.sax
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ingest import json_feed
from ingest.entries import Draft, Parsed, collect, not_a_feed
from ingest.errors import FeedError
from ingest.html import linked_data, to_text
from ingest.payload import NAMESPACE, Carried
from ingest.urls import absolute

#: entity declarations in ASCII and in EBCDIC; UTF-16 and UTF-32 only add NULs
_ENTITY_MARKS = (b"<!entity", "ENTITY".encode("cp037").lower())
#: encodings that hide markup from any look at the bytes, and that no feed uses
_HIDING = frozenset({"utf-7", "unicode-escape", "raw-unicode-escape", "punycode", "idna"})
_DECLARED = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_HEAD_BYTES = 1024


def _refuse_bad_bytes(body: bytes, content_type: str | None) -> None:
    flat = body.replace(b"\0", b"").lower()
    head = flat[:_HEAD_BYTES].partition(b"?>")[0]
    for name in _DECLARED.findall((content_type or "").encode() + b"\n" + head):
        if _hides_markup(name.decode("ascii", "replace")):
            raise FeedError("feed.encoding", f"the document claims to be {name.decode()!r}")
    if any(mark in flat for mark in _ENTITY_MARKS):
        raise FeedError("feed.entities", "the document declares entities, which no feed needs")


def _hides_markup(name: str) -> bool:
    try:
        return codecs.lookup(name).name.replace("_", "-") in _HIDING
    except (LookupError, ValueError):
        return False


def _document(body: bytes, content_type: str | None) -> Any:
    import feedparser  # it has no annotations

    try:
        # Given anything but a file object, the parser would open it: a path, a URL.
        return feedparser.parse(
            io.BytesIO(body),
            # Told where the document lies, it would resolve ids too, which are no links.
            response_headers={"content-type": content_type} if content_type else {},
            # Of markup we take the text and the JSON-LD, and sanitising would remove the latter.
            sanitize_html=False,
            resolve_relative_uris=False,
        )
    except MemoryError:  # a limit of the process, and not the document's fault alone
        raise
    except Exception as error:  # hostile bytes make it raise nearly anything
        raise FeedError(
            "feed.unparsable", f"the document cannot be parsed ({type(error).__name__})"
        ) from error


def _string(item: dict[str, Any], name: str) -> str:
    # Its own lookup maps names onto each other and warns: read the plain dictionary.
    value = dict.get(item, name)
    return value if isinstance(value, str) else ""


def _plain(value: str, kind: str) -> str:
    return value if kind in ("", "text/plain") else to_text(value)


def _title(item: dict[str, Any]) -> str:
    detail = dict.get(item, "title_detail") or {}
    return _plain(_string(item, "title"), _string(detail, "type"))


def _content(item: dict[str, Any]) -> tuple[str, str]:
    """Return an item's content and its type."""
    contents = dict.get(item, "content") or ()
    detail = contents[0] if contents else dict.get(item, "summary_detail") or {}
    return _string(detail, "value") or _string(item, "summary"), _string(detail, "type")


def _moment(parts: Any) -> datetime | None:
    try:
        year, month, day, hour, minute, second = parts[:6]
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _dates(item: dict[str, Any]) -> tuple[datetime, ...]:
    found = (_moment(dict.get(item, name)) for name in ("published_parsed", "updated_parsed"))
    return tuple(moment for moment in found if moment is not None)


def _element_names(document: Any) -> tuple[str, ...]:
    """Return the names under which the parser files elements called ``facts`` of our namespace."""
    prefixes = (p for p, uri in document.get("namespaces", {}).items() if uri == NAMESPACE)
    return tuple(f"{prefix}_facts".lower().removeprefix("_") for prefix in prefixes)


def _linked(content: str) -> Iterator[str]:
    """Yield what may be JSON-LD: scripts in the markup, or a content that is nothing else."""
    yield from linked_data(content)
    if content.lstrip().startswith("{"):
        yield content


def _carried(item: dict[str, Any], names: tuple[str, ...], is_broken: bool) -> Carried:
    element = next((item[name] for name in names if name in item), None)
    if element is None:
        return Carried(linked=tuple(_linked(_content(item)[0])))
    if is_broken:
        # The parser for broken markup leaves character references in, or drops the text.
        return Carried(unreadable="structured facts are read from well-formed XML only")
    if not isinstance(element, str):
        return Carried(unreadable="the facts element has attributes: declare its prefix outside")
    return Carried(element=element)


def _link(item: dict[str, Any], base: str | None) -> str:
    link = _string(item, "link")
    # A guid is taken for a link by default; one that is no address is none.
    return link if link == _string(item, "id") else absolute(link, base)


def _draft(
    item: dict[str, Any], names: tuple[str, ...], base: str | None, is_broken: bool
) -> Draft:
    return Draft(
        guid=_string(item, "id"),
        title=_title(item),
        text=_plain(*_content(item)),
        link=_link(item, base),
        dates=_dates(item),
        carried=_carried(item, names, is_broken),
        said={name: _string(item, name) for name in ("published", "updated")},
    )


def _parse_xml(body: bytes, content_type: str | None, now: datetime, base: str | None) -> Parsed:
    _refuse_bad_bytes(body, content_type)
    document = _document(body, content_type)
    if not dict.get(document, "version"):
        raise not_a_feed()
    is_broken = isinstance(document.get("bozo_exception"), xml.sax.SAXException)
    names, items = _element_names(document), document.entries
    return collect((_draft(item, names, base, is_broken) for item in items), len(items), now)


def looks_like_one(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a feed document, and not rows of JSON."""
    flat = head.replace(b"\0", b"").removeprefix(b"\xef\xbb\xbf").lstrip(b"\xff\xfe \t\r\n")
    return flat[:1] == b"<" or (flat[:1] == b"{" and json_feed.looks_like_one(flat))


def parse(body: bytes, content_type: str | None, now: datetime, base: str | None = None) -> Parsed:
    """Return the entries of a feed document, in its order.

    The format is told by the content, whatever the server calls it. `base` is the address that
    relative links start from. A bad item becomes a dead letter. Raises FeedError for what is
    empty, declares entities, is not strict JSON, or is not a feed.
    """
    if not body.strip():
        raise FeedError("feed.empty", "the document is empty")
    if json_feed.begins_like_json(body):
        return json_feed.parse(body, now, base)
    return _parse_xml(body, content_type, now, base)
