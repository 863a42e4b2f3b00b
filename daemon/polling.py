"""Poll the sources that are due; what a poll brings is stored in one transaction."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon import flapping, quotas
from daemon.config import Config
from daemon.quotas import Dropped
from daemon.store import Store, facts, timestamp
from ingest import (
    Entry,
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

#: as `fetch`
Look = Callable[["Source", Config, Extractor, datetime, int | None], Poll]
LONGEST_BACKOFF = timedelta(hours=24)
MAX_RAW_CHARS = 4096
#: of the interval: so much a poll may come later, so that sources added together part
JITTER_SHARE = 0.1


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
    dropped: tuple[Dropped, ...] = ()  #: facts over a quota, of whatever source
    waits: bool = False  #: a log that was left unread until there is room for its rows
    quota: str | None = None  #: what a log waits for, None: that triage catches up


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


def poll(
    store: Store,
    source: Source,
    config: Config,
    extract: Extractor,
    now: datetime,
    look: Look | None = None,
) -> Polled:
    """Poll one source and store the result; a source that fails is backed off, not lost.

    ``look`` fetches in another way than `fetch`; what it raises leaves the source as it was.
    """
    rows = None
    if source.kind == "log":
        rows, quota = quotas.log_room(store, source.id, config, now)
        if not rows:
            return _wait(store, source, config, quota, now)
    try:
        found = (look or fetch)(source, config, extract, now, rows)
    except IngestError as error:
        _note_failure(store, source, config, error, now)
        return Polled(source.name, error=str(error))
    with store.write():
        entries, new = _store_items(store, source, found.items, now)
        dropped = quotas.enforce(store, source.id, new, config, now) if new else ()
        for letter in found.dead:
            row = {"source_id": source.id, "received_at": timestamp(now)}
            row |= {"location": letter.location, "code": letter.code, "message": letter.message}
            store.table("dead_letter").insert(
                {**row, "raw": letter.raw[:MAX_RAW_CHARS]}, ignore=True
            )
        _note_success(store, source, config, found, now)
    return Polled(
        source.name,
        entries,
        len(new),
        len(found.dead),
        found.not_modified,
        found.more,
        dropped=dropped,
    )


def _wait(store: Store, source: Source, config: Config, quota: str | None, now: datetime) -> Polled:
    """Leave a log unread: for a day's quota until the next poll, for triage until it gets on."""
    if quota is not None:
        wait = timedelta(minutes=config.ingest.poll_interval_minutes)
        with store.write():
            store.table("source").update(source.id, {"next_poll_at": timestamp(now + wait)})
    return Polled(source.name, waits=True, quota=quota)


def fetch(
    source: Source, config: Config, extract: Extractor, now: datetime, rows: int | None = None
) -> Poll:
    """Fetch or read what is new at a source; writes nothing. Raises IngestError.

    ``rows`` is how many to read of a log, None for as many as a poll may.
    """
    if source.kind == "log":
        limit = rows or config.ingest.max_rows_per_poll
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
) -> tuple[int, list[int]]:
    """Store entries not seen before and the facts in them; return how many, and which facts."""
    entries, new = 0, []
    received = facts.receive_time(store, now)
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
        if is_stored(store, source.id, entry):
            continue
        entry_id = store.insert("entry", row)
        entries += 1
        # A source's own date orders facts only where the operator trusts the source.
        dated = entry.published if source.tier == "trusted" else None
        doubt = flapping.reason(store, source.id, entry.key, now)
        for candidate in item.candidates:
            asserted = dated or received
            number = facts.insert(
                store, candidate, entry_id, source.tier, asserted, received, source.id
            )
            # One that is held is no news, however often its entry changes: triage sees to it.
            if doubt and not facts.held_before(store, number):
                store.transition("fact", number, "quarantine", now, doubt)
            new.append(number)
    return entries, new


def is_stored(store: Store, source_id: int, entry: Entry) -> bool:
    """Tell whether a source delivered an entry before, with the same content."""
    sql = "SELECT id FROM entry WHERE source_id = ? AND key = ? AND content_hash = ?"
    return store.one(sql, source_id, entry.key, entry.content_hash) is not None


def _note_success(store: Store, source: Source, config: Config, found: Poll, now: datetime) -> None:
    wait = timedelta(minutes=config.ingest.poll_interval_minutes)
    wait *= 1 + JITTER_SHARE * random.random()
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
        if error.code == "fetch.gone":
            store.event("source.gone", f"source:{source.id}", {"name": source.name}, now)
