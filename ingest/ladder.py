"""From an entry to its facts: the structured payload speaks, and only without one the text."""

from __future__ import annotations

from ingest import payload
from ingest.errors import RowError
from ingest.extract import Extractor
from ingest.text import fact_key
from ingest.types import Candidate, DeadLetter, Entry, Item, Stated


def item(entry: Entry, extractor: Extractor) -> tuple[Item, tuple[DeadLetter, ...]]:
    """Return an entry with the facts found in it, and those of its payload that cannot be used."""
    if entry.payload is None:
        return Item(entry, extractor.from_entry(entry)), ()
    found: dict[str, Candidate] = {}
    dead = []
    for stated in entry.payload:
        try:
            candidate = _candidate(stated, extractor)
        except RowError as why:
            dead.append(_dead(entry, stated, why))
            continue
        key = fact_key(candidate.subject, candidate.relation, candidate.object)
        found.setdefault(key, candidate)
    return Item(entry, tuple(found.values())), tuple(dead)


def _candidate(stated: Stated, extractor: Extractor) -> Candidate:
    if stated.is_withdrawn:
        raise RowError(
            "row.withdrawn",
            "the source takes this back; if it was believed, wised fact retract takes it out",
        )
    return extractor.from_stated(stated, payload.quote(stated))


def _dead(entry: Entry, stated: Stated, why: RowError) -> DeadLetter:
    location = f"entry {entry.title[:80] or entry.link or entry.key[:12]}"
    code = why.code.replace("row.", "payload.", 1)
    return DeadLetter(location, code, why.message, payload.quote(stated)[:4096])
