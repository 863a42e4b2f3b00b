"""Values that leave `ingest`: frozen, without storage keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Relation:
    """How one relation is recognised and asked for (``[relations.NAME]`` of the configuration)."""

    name: str
    single_valued: bool  #: a newer object replaces the older one
    prompts: tuple[str, ...]  #: training phrasings, each with one ``{subject}`` field
    held_out: tuple[str, ...]  #: phrasings that only probes use
    patterns: tuple[str, ...]  #: regular expressions with groups ``subject`` and ``object``


@dataclass(frozen=True, slots=True)
class Stated:
    """A fact that an entry carries in structured form, in its source's words, tidied."""

    subject: str
    relation: str  #: as spelled by the source; it need not be configured
    object: str
    old: str | None  #: the value that the source says it replaces
    extractor: str  #: name/version of what read it, e.g. ``payload/1``
    is_withdrawn: bool = False  #: the source takes it back


@dataclass(frozen=True, slots=True)
class Entry:
    """One item as a source delivered it: evidence."""

    key: str  #: sha256 hex of the item's identity within its source
    content_hash: str  #: sha256 hex of title, text, link and payload (not of dates)
    title: str  #: cleaned for display
    text: str  #: cleaned for display
    link: str | None
    published: datetime | None  #: aware UTC, as the source claims; None when absent or absurd
    raw: str  #: what was parsed: a log line, or a feed entry's fields as JSON
    payload: tuple[Stated, ...] | None = None  #: facts in structured form; None: it has none


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fact as extracted, before anyone believed it."""

    subject: str
    relation: str  #: a configured relation, or ``ASKED`` for a bare prompt
    object: str
    old: str | None  #: the value that the source says it replaces
    prompts: tuple[str, ...]  #: prompts to train on, the edit prompt first
    held_out: tuple[str, ...]  #: prompts only for probes; may be empty for ``ASKED``
    quote: str  #: the text of the entry that says so
    extractor: str  #: name/version, e.g. ``pattern/1``


#: relation of a fact that is known only by the prompt that asks for it; its subject is the prompt
ASKED = "asked"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that could not be used; it stops nothing."""

    location: str  #: where in the source: ``offset 1234`` or an entry's guid
    code: str  #: stable, e.g. ``row.bad_json``
    message: str  #: what is wrong and what would be right
    raw: str  #: at most 4 KiB of the item


@dataclass(frozen=True, slots=True)
class Item:
    """An entry and the facts found in it."""

    entry: Entry
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a correction log has been read up to."""

    offset: int  #: bytes, just after the last newline consumed
    fingerprint: str  #: sha256 hex of the file's first min(offset, 1024) bytes
    #: sha256 hex of the min(offset, 1024) bytes before the offset; None where it was not kept
    tail: str | None = None
    #: the file's inode number, as text since it may exceed a database's integers; None where it
    #: was not kept
    inode: str | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll of a source brought; stored in one transaction."""

    items: tuple[Item, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    etag: str | None = None  #: feeds: validators for the next request
    last_modified: str | None = None
    not_modified: bool = False  #: feeds: nothing new (304, or 200 with the same strong ETag)
    retry_after: float | None = None  #: seconds that the server asked us to wait
    #: feeds: where the server says that it has moved for good; may hold credentials
    moved_to: str | None = field(default=None, repr=False)
    position: LogPosition | None = None  #: logs: where the next poll goes on
    more: bool = False  #: logs: rows are left beyond this poll's limit
    notes: tuple[str, ...] = field(default=())  #: e.g. ``log.rotated``, for the status logs
    received_bytes: int = 0  #: feeds: size of the body
