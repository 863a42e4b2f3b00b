"""What every feed format has in common: from an item as it was found to an entry.

The formats' readers only find; limits, identity, content hash and payload are decided here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from ingest import payload
from ingest.errors import FeedError, PayloadError
from ingest.payload import Carried
from ingest.strict_json import NotStrict
from ingest.text import clean, clean_lines, digest
from ingest.times import credible
from ingest.types import DeadLetter, Entry, Stated

#: what one document may bring; what a reader of feeds ever met stays far below
MAX_ENTRIES = 500
MAX_TEXT_BYTES = 64 * 1024
MAX_GUID_BYTES = 1024
_RAW_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Draft:
    """One item as its format's reader found it, before any limit."""

    guid: str  #: empty when the item names itself by nothing but its link or its text
    title: str  #: without markup
    text: str  #: without markup
    link: str  #: absolute; empty when there is none
    dates: tuple[datetime, ...]  #: aware; when it was published and updated
    carried: Carried = field(default_factory=Carried)
    said: Mapping[str, str] = field(default_factory=dict)  #: more of it, for the evidence


@dataclass(frozen=True, slots=True)
class Parsed:
    """The entries of a document, and the items that could not be used."""

    entries: tuple[Entry, ...]
    dead: tuple[DeadLetter, ...]


class _Unusable(Exception):
    """One item cannot become an entry; args are a code and a message."""


def not_a_feed(found: str = "neither RSS, Atom, JSON Feed nor a schema.org DataFeed") -> FeedError:
    """Return the error for a document that is something else."""
    return FeedError(
        "feed.not_a_feed",
        f"the document is {found}",
        "open the URL in a browser: it may show an error page or need a login",
    )


def not_strict(why: NotStrict) -> FeedError:
    """Return the error for a document that is not strict JSON."""
    return FeedError(f"feed.{why.kind}", f"the document is no strict JSON: {why.message}")


def _text(draft: Draft) -> str:
    text = clean_lines(draft.text)
    cut = text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    # A line that was cut could state half a name.
    return text if cut == text else cut.rpartition("\n")[0]


def _link(draft: Draft) -> str | None:
    link = clean(draft.link)
    is_web = link.lower().startswith(("http://", "https://"))
    return link if is_web and len(link.encode()) <= MAX_GUID_BYTES else None


def _identity(draft: Draft, title: str, text: str) -> str:
    guid = draft.guid.strip() or draft.link.strip()
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


def _content_hash(title: str, text: str, link: str | None, stated: tuple[Stated, ...]) -> str:
    """Hash what an entry says, whatever format says it; its dates are not part of that."""
    facts = [[one.subject, one.relation, one.object, one.old, one.is_withdrawn] for one in stated]
    return digest([title, text, link, *([facts] if facts else [])])


def _raw(draft: Draft, title: str, text: str, link: str | None, stated: tuple[Stated, ...]) -> str:
    fields: dict[str, object] = {"id": draft.guid[:_RAW_BYTES]}
    fields |= {name: value[:_RAW_BYTES] for name, value in draft.said.items()}
    fields |= {"title": title, "text": text, "link": link}
    fields["facts"] = [json.loads(payload.quote(one)) for one in stated]
    kept = {name: value for name, value in fields.items() if value}
    # Half a surrogate pair has no UTF-8, and a database takes nothing else.
    return json.dumps(kept, ensure_ascii=False).encode(errors="replace").decode()


def _entry(draft: Draft, index: int, used: set[str], now: datetime) -> Entry:
    title, text, link = clean(draft.title), _text(draft), _link(draft)
    identity = _identity(draft, title, text)
    stated = payload.read(draft.carried)
    # An update asserts its text anew: the latest credible date that the source gives.
    dates = (credible(moment, now) for moment in draft.dates)
    return Entry(
        key=_unused_key(identity, link, index, used),
        content_hash=_content_hash(title, text, link, stated or ()),
        title=title,
        text=text,
        link=link,
        published=max(filter(None, dates), default=None),
        raw=_raw(draft, title, text, link, stated or ()),
        payload=stated,
    )


def _dead(draft: Draft, index: int, code: str, message: str) -> DeadLetter:
    said = {"id": draft.guid, "title": draft.title, "link": draft.link, "text": draft.text}
    raw = json.dumps({name: value[:400] for name, value in said.items()})
    location = f"entry {index} {clean(draft.guid[:200])[:80]}".rstrip()
    return DeadLetter(location, code, message, raw[:_RAW_BYTES])


def collect(drafts: Iterable[Draft], total: int, now: datetime) -> Parsed:
    """Return the entries of a document's items, in their order.

    An item that cannot be used is a dead letter, and so are those beyond MAX_ENTRIES, all in one.
    """
    entries: list[Entry] = []
    dead: list[DeadLetter] = []
    used: set[str] = set()
    for index, draft in enumerate(islice(drafts, MAX_ENTRIES + 1)):
        try:
            if index == MAX_ENTRIES:
                message = f"{total} entries; only the first {MAX_ENTRIES} were read"
                raise _Unusable("feed.too_many_entries", message)
            entries.append(_entry(draft, index, used, now))
        except _Unusable as why:
            dead.append(_dead(draft, index, *why.args))
        except PayloadError as why:
            dead.append(_dead(draft, index, why.code, why.message))
    return Parsed(tuple(entries), tuple(dead))
