"""Feed documents to entries. The parser sees bytes in memory and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.errors import FeedError
from ingest.html import to_text
from ingest.text import clean, clean_lines, digest
from ingest.times import credible
from ingest.types import DeadLetter, Entry

#: what one document may bring; what a reader of feeds ever met stays far below
MAX_ENTRIES = 500
MAX_TEXT_BYTES = 64 * 1024
MAX_GUID_BYTES = 1024
_RAW_BYTES = 4096

#: entity declarations in ASCII and in EBCDIC; UTF-16 and UTF-32 only add NULs
_ENTITY_MARKS = (b"<!entity", "ENTITY".encode("cp037").lower())
#: an encoding that hides markup from any look at the bytes, and that no feed uses
_UTF7 = re.compile(rb"\bu(?:nicode-1-1-u)?(?:tf)?[-_]?7\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parsed:
    """The entries of a document, and the items that could not be used."""

    entries: tuple[Entry, ...]
    dead: tuple[DeadLetter, ...]


class _Unusable(Exception):
    """One item cannot become an entry; args are a code and a message."""


def _refuse_bad_bytes(body: bytes, content_type: str | None) -> None:
    if not body.strip():
        raise FeedError("feed.empty", "the document is empty")
    if _UTF7.search((content_type or "").encode()) or _UTF7.search(body[:256]):
        raise FeedError("feed.encoding", "the document claims to be UTF-7")
    flat = body.replace(b"\0", b"").lower()
    if any(mark in flat for mark in _ENTITY_MARKS):
        raise FeedError("feed.entities", "the document declares entities, which no feed needs")


def _document(body: bytes, content_type: str | None, base: str | None) -> Any:
    import feedparser  # it has no annotations

    headers = {"content-type": content_type, "content-location": base}
    try:
        # Given anything but a file object, the parser would open it: a path, a URL.
        return feedparser.parse(
            io.BytesIO(body),
            response_headers={name: value for name, value in headers.items() if value},
            sanitize_html=True,
            resolve_relative_uris=True,
        )
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
    return clean(_plain(_string(item, "title"), _string(detail, "type")))


def _text(item: dict[str, Any]) -> str:
    contents = dict.get(item, "content") or ()
    detail = contents[0] if contents else dict.get(item, "summary_detail") or {}
    value = _string(detail, "value") or _string(item, "summary")
    text = clean_lines(_plain(value, _string(detail, "type")))
    cut = text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    # A line that was cut could state half a name.
    return text if cut == text else cut.rpartition("\n")[0]


def _link(item: dict[str, Any]) -> str | None:
    link = clean(_string(item, "link"))
    is_web = link.lower().startswith(("http://", "https://"))
    return link if is_web and len(link.encode()) <= MAX_GUID_BYTES else None


def _moment(parts: Any) -> datetime | None:
    try:
        year, month, day, hour, minute, second = parts[:6]
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _published(item: dict[str, Any], now: datetime) -> datetime | None:
    """Return the latest credible date that the source gives: an update asserts its text anew."""
    moments = (_moment(dict.get(item, name)) for name in ("published_parsed", "updated_parsed"))
    return max((m for m in moments if m and credible(m, now)), default=None)


def _identity(item: dict[str, Any], title: str, text: str) -> str:
    guid = _string(item, "id").strip() or _string(item, "link").strip()
    if len(guid.encode(errors="replace")) > MAX_GUID_BYTES:
        raise _Unusable("entry.guid_too_long", f"the guid is over {MAX_GUID_BYTES} bytes")
    if not guid and not title and not text:
        raise _Unusable("entry.empty", "the entry has no guid, link, title or text")
    return guid or f"{title}\n{text}"


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()


def _unused_key(guid: str, link: str | None, index: int, used: set[str]) -> str:
    """Return the identity's hash; a guid's second use needs its link, then its place, too."""
    for identity in (guid, f"{guid}|{link}" if link else guid, f"{guid}|{index}"):
        if (key := _hash(identity)) not in used:
            break
    used.add(key)
    return key


def _raw(item: dict[str, Any], title: str, text: str, link: str | None) -> str:
    fields = {name: _string(item, name)[:_RAW_BYTES] for name in ("id", "published", "updated")}
    fields |= {"title": title, "text": text, "link": link or ""}
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)


def _entry(item: dict[str, Any], index: int, used: set[str], now: datetime) -> Entry:
    title, text, link = _title(item), _text(item), _link(item)
    return Entry(
        key=_unused_key(_identity(item, title, text), link, index, used),
        content_hash=digest([title, text, link]),
        title=title,
        text=text,
        link=link,
        published=_published(item, now),
        raw=_raw(item, title, text, link),
    )


def _dead(item: dict[str, Any], index: int, code: str, message: str) -> DeadLetter:
    guid = clean(_string(item, "id"))[:80]
    raw = json.dumps(
        {name: _string(item, name)[:400] for name in ("id", "title", "link", "summary")}
    )
    return DeadLetter(f"entry {index} {guid}".rstrip(), code, message, raw[:_RAW_BYTES])


def _surplus(items: Sequence[dict[str, Any]]) -> list[DeadLetter]:
    if len(items) <= MAX_ENTRIES:
        return []
    message = f"{len(items)} entries; only the first {MAX_ENTRIES} were read"
    return [_dead(items[MAX_ENTRIES], MAX_ENTRIES, "feed.too_many_entries", message)]


def parse(body: bytes, content_type: str | None, now: datetime, base: str | None = None) -> Parsed:
    """Return the entries of an RSS or Atom document, in its order.

    `base` is the address that relative links start from. A bad item becomes a dead letter. Raises
    FeedError for what is empty, declares entities or is not a feed.
    """
    _refuse_bad_bytes(body, content_type)
    document = _document(body, content_type, base)
    if not dict.get(document, "version"):
        raise FeedError(
            "feed.not_a_feed",
            "the document is neither RSS nor Atom",
            "open the URL in a browser: it may show an error page or need a login",
        )
    entries, dead, used = [], _surplus(document.entries), set[str]()
    for index, item in enumerate(document.entries[:MAX_ENTRIES]):
        try:
            entries.append(_entry(item, index, used, now))
        except _Unusable as why:
            dead.append(_dead(item, index, *why.args))
    return Parsed(tuple(entries), tuple(dead))
