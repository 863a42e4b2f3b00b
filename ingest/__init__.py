"""Feeds and correction logs to candidate facts: fetching, parsing, extraction, deduplication.

Names are loaded when they are used, so that importing the package costs no HTTP client and no
feed parser. `ingest.fetch.fetch`, `ingest.feed.parse` and `ingest.log.read` are reached through
their modules, which have the better claim to those words.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.dedupe import Claim, Verdict, judge, sentence
    from ingest.errors import FeedError, FetchError, IngestError, LogError, ReaderError, RowError
    from ingest.extract import Extractor
    from ingest.fetch import Limits, Response
    from ingest.index import Index
    from ingest.names import Names
    from ingest.objects import same_object
    from ingest.phrasing import fill
    from ingest.poll import poll_document, poll_feed, poll_log
    from ingest.reading import Passage, Reader, Reading, is_read, passage, read
    from ingest.text import clean, fact_key, fold, name_key, slot_key
    from ingest.types import (
        ASKED,
        Candidate,
        DeadLetter,
        Entry,
        Item,
        LogPosition,
        Poll,
        Relation,
    )
    from ingest.urls import redact
    from ingest.wording import Wordings

__all__ = [
    "ASKED",
    "Candidate",
    "Claim",
    "DeadLetter",
    "Entry",
    "Extractor",
    "FeedError",
    "FetchError",
    "Index",
    "IngestError",
    "Item",
    "Limits",
    "LogError",
    "LogPosition",
    "Names",
    "Passage",
    "Poll",
    "Reader",
    "ReaderError",
    "Reading",
    "Relation",
    "Response",
    "RowError",
    "Verdict",
    "Wordings",
    "clean",
    "fact_key",
    "fill",
    "fold",
    "is_read",
    "judge",
    "name_key",
    "passage",
    "poll_document",
    "poll_feed",
    "poll_log",
    "read",
    "redact",
    "same_object",
    "sentence",
    "slot_key",
]

_MODULES = {
    "dedupe": ("Claim", "Verdict", "judge", "sentence"),
    "errors": ("FeedError", "FetchError", "IngestError", "LogError", "ReaderError", "RowError"),
    "extract": ("Extractor",),
    "fetch": ("Limits", "Response"),
    "index": ("Index",),
    "names": ("Names",),
    "objects": ("same_object",),
    "phrasing": ("fill",),
    "poll": ("poll_document", "poll_feed", "poll_log"),
    "reading": ("Passage", "Reader", "Reading", "is_read", "passage", "read"),
    "text": ("clean", "fact_key", "fold", "name_key", "slot_key"),
    "types": (
        "ASKED",
        "Candidate",
        "DeadLetter",
        "Entry",
        "Item",
        "LogPosition",
        "Poll",
        "Relation",
    ),
    "urls": ("redact",),
    "wording": ("Wordings",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    return getattr(import_module(f"ingest.{_HOMES[name]}"), name)
