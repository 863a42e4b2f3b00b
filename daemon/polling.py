"""Poll the sources that are due; what a poll brings is stored in one transaction."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon import flapping
from daemon.config import Config
from daemon.store import Store, facts, timestamp, vitals
from ingest import (
    Extractor,
    IngestError,
    Item,
    Limits,
    LogPosition,
    Poll,
    Relation,
    poll_feed,
    poll_log,
)
from ingest.formats import AUTO

LONGEST_BACKOFF = timedelta(hours=24)
MAX_RAW_CHARS = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A feed or a correction log."""

    id: int
    name: str
    kind: str  #: ``feed`` or ``log``
    location: str  #: URL or path
    tier: str
    state: str
    allow_private: bool
    etag: str | None
    last_modified: str | None
    position: LogPosition | None
    failures: int
    format: str = AUTO  #: of a log's rows


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll came to, for the status log."""

    source: str
    entries: int = 0
    facts: int = 0
    dead: int = 0
    unchanged: bool = False
    more: bool = False
    error: str | None = None


def extractor(config: Config) -> Extractor:
    """Return the extractor of the configured relations."""
    return Extractor(
        {
            name: Relation(name, r.single_valued, r.prompts, r.held_out, r.patterns)
            for name, r in config.relations.items()
        }
    )


def _source(row: sqlite3.Row) -> Source:
    offset = row["log_offset"]
    position = None
    if offset is not None:
        told = (row["log_fingerprint"], row["log_tail"], row["log_inode"])
        position = LogPosition(offset, *told)
    return Source(
        row["id"],
        row["name"],
        row["kind"],
        row["location"],
        row["tier"],
        row["state"],
        bool(row["allow_private"]),
        row["etag"],
        row["last_modified"],
        position,
        row["failures"],
        row["format"],
    )


def due(store: Store, now: datetime) -> list[Source]:
    """Return the active sources whose next poll is due, longest waiting first."""
    rows = store.rows(
        "SELECT * FROM source WHERE state = 'active' AND next_poll_at <= ? ORDER BY next_poll_at",
        timestamp(now),
    )
    return [_source(row) for row in rows]


def poll(store: Store, source: Source, config: Config, extract: Extractor, now: datetime) -> Polled:
    """Poll one source and store the result; a source that fails is backed off, not lost."""
    try:
        found = fetch(source, config, extract, now)
    except IngestError as error:
        _note_failure(store, source, config, error, now)
        return Polled(source.name, error=str(error))
    with store.write():
        entries, kept = _store_items(store, source, found.items, now)
        for letter in found.dead:
            row = {"source_id": source.id, "received_at": timestamp(now)}
            row |= {"location": letter.location, "code": letter.code, "message": letter.message}
            store.table("dead_letter").insert(
                {**row, "raw": letter.raw[:MAX_RAW_CHARS]}, ignore=True
            )
        _note_success(store, source, config, found, now)
        vitals.count_poll(store, source.id, "", found.received_bytes)
    return Polled(source.name, entries, kept, len(found.dead), found.not_modified, found.more)


def fetch(source: Source, config: Config, extract: Extractor, now: datetime) -> Poll:
    """Fetch or read what is new at a source; writes nothing. Raises IngestError."""
    if source.kind == "log":
        limit = config.ingest.max_rows_per_poll
        path = Path(source.location)
        return poll_log(path, source.position, extract, limit, now, source.format)
    return poll_feed(
        source.location,
        etag=source.etag,
        last_modified=source.last_modified,
        extractor=extract,
        now=now,
        allow_private=source.allow_private,
        limits=Limits(total_seconds=config.ingest.timeout_seconds),
    )


def _store_items(
    store: Store, source: Source, items: tuple[Item, ...], now: datetime
) -> tuple[int, int]:
    """Store entries not seen before and the facts in them; return how many of each."""
    entries = kept = 0
    for item in items:
        entry = item.entry
        published = timestamp(entry.published) if entry.published else None
        row = {
            "source_id": source.id,
            "key": entry.key,
            "content_hash": entry.content_hash,
            "title": entry.title,
            "link": entry.link,
            "published_at": published,
            "received_at": timestamp(now),
            "raw": entry.raw,
        }
        if store.one(
            "SELECT id FROM entry WHERE source_id = ? AND key = ? AND content_hash = ?",
            source.id,
            entry.key,
            entry.content_hash,
        ):
            continue
        entry_id = store.insert("entry", row)
        entries += 1
        # A source's own date orders facts only where the operator trusts the source.
        dated = entry.published if source.tier == "trusted" else None
        doubt = flapping.reason(store, source.id, entry.key, now)
        for candidate in item.candidates:
            number = facts.insert(store, candidate, entry_id, source.tier, dated or now, now)
            # One that is held is no news, however often its entry changes: triage sees to it.
            if doubt and not facts.held_before(store, number):
                store.transition("fact", number, "quarantine", now, doubt)
            kept += 1
    return entries, kept


def _note_success(store: Store, source: Source, config: Config, found: Poll, now: datetime) -> None:
    wait = timedelta(minutes=config.ingest.poll_interval_minutes)
    if found.more:
        wait = timedelta(0)
    elif found.retry_after:
        wait = max(wait, timedelta(seconds=found.retry_after))
    values: dict[str, object] = {
        "next_poll_at": timestamp(now + wait),
        "last_ok_at": timestamp(now),
        "failures": 0,
        "last_error": None,
        "etag": found.etag,
        "last_modified": found.last_modified,
    }
    if found.position:
        values |= {
            "log_offset": found.position.offset,
            "log_fingerprint": found.position.fingerprint,
            "log_tail": found.position.tail,
            "log_inode": found.position.inode,
        }
    store.table("source").update(source.id, values)


def _note_failure(
    store: Store, source: Source, config: Config, error: IngestError, now: datetime
) -> None:
    """Back off with full jitter; a feed that is gone for good is not asked again."""
    base = timedelta(minutes=max(1.0, config.ingest.poll_interval_minutes))
    longest = min(LONGEST_BACKOFF, base * 2 ** min(source.failures, 12))
    wait = max(timedelta(minutes=1), longest * random.random())
    asked = getattr(error, "retry_after", None)
    if asked:
        wait = max(wait, timedelta(seconds=asked))
    values = {
        "next_poll_at": timestamp(now + wait),
        "failures": source.failures + 1,
        "last_error": str(error),
    }
    if error.code == "fetch.gone":
        values["state"] = "gone"
    with store.write():
        store.table("source").update(source.id, values)
        vitals.count_poll(store, source.id, error.code)
        if error.code == "fetch.gone":
            store.event("source.gone", f"source:{source.id}", {"name": source.name}, now)
