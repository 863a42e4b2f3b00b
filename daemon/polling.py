"""Poll the sources that are due; what a poll brings is stored in one transaction."""

from __future__ import annotations

import random
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from daemon import quotas, schedule
from daemon.config import Config
from daemon.faults import fault
from daemon.keeping import Stored, keep
from daemon.patience import GivenUp
from daemon.quotas import Dropped
from daemon.reading import is_for_reader, mark
from daemon.schedule import Move
from daemon.store import Store, facts, timestamp, vitals
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
from ingest.networks import Allowed
from ingest.urls import host, redact

#: as `fetch`
Look = Callable[["Source", Config, Extractor, datetime, int | None], Poll]
MAX_RAW_CHARS = 4096
#: of the interval: so much a poll may come later, so that sources added together part
JITTER_SHARE = 0.1
OVERTAKEN = "poll.overtaken: it was paused, removed or changed while it was polled: nothing is kept"


@dataclass(frozen=True, slots=True)
class Source:
    """A feed or a correction log."""

    id: int
    name: str
    kind: str  #: ``feed`` or ``log``
    location: str = field(repr=False)  #: URL or path; may hold credentials
    tier: str
    state: str
    allowed: Allowed  #: private addresses that it may be fetched from
    etag: str | None
    last_modified: str | None
    position: LogPosition | None
    failures: int
    format: str = AUTO  #: of a log's rows
    last_full_at: datetime | None = None  #: a feed's whole document; None before the first
    move: Move | None = None  #: where a feed says that it has moved for good


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
    trace: str = ""  #: of a failure that nobody foresaw
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
        Allowed.parse((row["allow_private"],)),
        row["etag"],
        row["last_modified"],
        position,
        row["failures"],
        row["format"],
        datetime.fromisoformat(row["last_full_at"]) if row["last_full_at"] else None,
        schedule.move(row["moved_to"], row["moved_polls"]),
    )


def due(store: Store, now: datetime) -> list[Source]:
    """Return the active sources whose next poll is due, longest waiting first."""
    # What works goes before what fails: a feed that is told 429 holds up its host's others, and
    # they would never have their turn.
    rows = store.rows(
        "SELECT * FROM source WHERE state = 'active' AND next_poll_at <= ?"
        " ORDER BY next_poll_at, failures, id",
        timestamp(now),
    )
    return [_source(row) for row in rows]


def due_in_turn(store: Store, clock: Callable[[], datetime]) -> Iterator[Source]:
    """Yield each source that is due once, looked up anew before each.

    What one poll brings may hold up the next: a host that is busy, an operator who pauses it.
    """
    seen: set[int] = set()
    while waiting := [source for source in due(store, clock()) if source.id not in seen]:
        seen.add(waiting[0].id)
        yield waiting[0]


def poll(
    store: Store,
    source: Source,
    config: Config,
    extract: Extractor,
    now: datetime,
    look: Look | None = None,
) -> Polled:
    """Poll one source and store the result; a source that fails is backed off, not lost.

    What it brings is dropped when the operator paused, removed or changed it meanwhile.
    Whatever fails, a bug that its data bring to light too, costs this source alone: it would come
    first again in the next round. ``look`` fetches in another way than `fetch`. Raises GivenUp of
    ``look`` and what the database raises; both leave the source as it was.
    """
    rows = None
    if source.kind == "log":
        rows, quota = quotas.log_room(store, source.id, config, now)
        if not rows:
            return _wait(store, source, config, quota, now)
    try:
        found = (look or fetch)(source, config, extract, now, rows)
        fault("poll.fetched")
        return _stored(store, source, config, found, now)
    except (GivenUp, sqlite3.Error):
        raise
    except Exception as error:
        why, trace = _why(error)
        _note_failure(store, source, config, why, now)
        return Polled(source.name, error=str(why), trace=trace)


def _why(error: Exception) -> tuple[IngestError, str]:
    """Return what a poll failed of, and the traceback of what nobody foresaw.

    The error's own words may hold a URL with its credentials, and are shown in the log alone.
    """
    if isinstance(error, IngestError):
        return error, ""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        return IngestError("poll.system", f"the system refused: {what}"), trace
    what = f"{type(error).__name__}, which is a bug: the log has its traceback"
    return IngestError("poll.bug", what), trace


def _stored(store: Store, source: Source, config: Config, found: Poll, now: datetime) -> Polled:
    with store.write():
        if _state_now(store, source) != "active":
            return Polled(source.name, error=OVERTAKEN)
        entries, new = _store_items(store, source, config, found.items, now)
        dropped = quotas.enforce(store, source.id, new, config, now) if new else ()
        for letter in found.dead:
            row = {"source_id": source.id, "received_at": timestamp(now)}
            row |= {"location": letter.location, "code": letter.code, "message": letter.message}
            store.table("dead_letter").insert(
                {**row, "raw": letter.raw[:MAX_RAW_CHARS]}, ignore=True
            )
        _note_success(store, source, config, found, now)
        vitals.count_poll(store, source.id, "", found.received_bytes)
    fault("poll.stored")
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
    whole = schedule.is_full_due(source.last_full_at, now)
    return poll_feed(
        source.location,
        etag=None if whole else source.etag,
        last_modified=None if whole else source.last_modified,
        extractor=extract,
        now=now,
        allowed=source.allowed,
        limits=Limits(total_seconds=config.ingest.timeout_seconds),
        ca_file=config.ingest.ca_file,
    )


def _store_items(
    store: Store, source: Source, config: Config, items: tuple[Item, ...], now: datetime
) -> tuple[int, list[int]]:
    """Store entries not seen before and the facts in them; return how many, and which facts."""
    entries, new = 0, list[int]()
    received = facts.receive_time(store, now)
    # A log's later rows are newer, in one poll as in two.
    step = timedelta(microseconds=source.kind == "log")
    for number, item in enumerate(items):
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
        at = received + number * step
        stored = Stored(entry_id, entry.key, source.id, source.tier, entry.published, at)
        new += keep(store, stored, item.candidates, now)
        if is_for_reader(item, config):
            mark(store, entry_id, item, now)
    return entries, new


def is_stored(store: Store, source_id: int, entry: Entry) -> bool:
    """Tell whether a source delivered an entry before, with the same content."""
    sql = "SELECT id FROM entry WHERE source_id = ? AND key = ? AND content_hash = ?"
    return store.one(sql, source_id, entry.key, entry.content_hash) is not None


def _interval(config: Config) -> timedelta:
    return timedelta(minutes=config.ingest.poll_interval_minutes)


def _state_now(store: Store, source: Source) -> str | None:
    """Return a source's state; None when the operator made another of it while it was polled.

    What the old one brought is nothing to the new one, and neither are its validators.
    """
    sql = "SELECT state FROM source WHERE id = ? AND location = ? AND format = ? AND tier = ?"
    row = store.one(sql, source.id, source.location, source.format, source.tier)
    return None if row is None else str(row["state"])


def _note_success(store: Store, source: Source, config: Config, found: Poll, now: datetime) -> None:
    interval = _interval(config) * (1 + JITTER_SHARE * random.random())
    wait = schedule.after_success(interval, found.more, found.retry_after)
    values: dict[str, object] = {
        "next_poll_at": timestamp(now + wait),
        "last_ok_at": timestamp(now),
        "failures": 0,
        "last_error": None,
        "etag": found.etag,
        "last_modified": found.last_modified,
    }
    if source.kind == "feed":
        values |= _noted_move(store, source, found, now)
        if not found.not_modified:
            values["last_full_at"] = timestamp(now)
    if found.position:
        values |= {
            "log_offset": found.position.offset,
            "log_fingerprint": found.position.fingerprint,
            "log_tail": found.position.tail,
            "log_inode": found.position.inode,
        }
    store.table("source").update(source.id, values)


def _noted_move(store: Store, source: Source, found: Poll, now: datetime) -> dict[str, object]:
    """Return the columns that say where a feed has moved; an event when that is proposed anew."""
    move = schedule.next_move(source.move, found.moved_to)
    if move is None:
        return {"moved_to": None, "moved_polls": 0}
    if move.polls == schedule.PROPOSE_AFTER:
        data = {"name": source.name, "location": redact(source.location), "to": redact(move.url)}
        store.event("source.moved", f"source:{source.id}", data, now)
    return {"moved_to": move.url, "moved_polls": move.polls}


def _note_failure(
    store: Store, source: Source, config: Config, error: IngestError, now: datetime
) -> None:
    """Back off; a feed that is gone for good is not asked again until the operator resumes it."""
    asked = getattr(error, "retry_after", None)
    wait = schedule.after_failure(_interval(config), source.failures, asked, random.random())
    values: dict[str, object] = {
        "next_poll_at": timestamp(now + wait),
        "failures": source.failures + 1,
        "last_error": str(error),
    }
    with store.write():
        if _state_now(store, source) is None:
            return
        store.table("source").update(source.id, values)
        vitals.count_poll(store, source.id, error.code)
        if error.code == "fetch.gone":
            _note_gone(store, source, error, now)
        busy = getattr(error, "busy_host", None)
        if busy and asked:
            _hold_host(store, busy, now + timedelta(seconds=asked))
    fault("poll.failed")


def _note_gone(store: Store, source: Source, error: IngestError, now: datetime) -> None:
    gone = store.connection.execute(
        "UPDATE source SET state = 'gone' WHERE id = ? AND state = 'active'", (source.id,)
    )
    if gone.rowcount:  # else the operator paused or removed it meanwhile
        data = {"name": source.name, "from": source.state, "to": "gone", "reason": str(error)}
        store.event("source.gone", f"source:{source.id}", data, now)


def _hold_host(store: Store, busy: str, until: datetime) -> None:
    """Let a host's feeds wait: it said 429, which is meant for us and not for one feed."""
    for row in store.rows("SELECT id, location FROM source WHERE kind = 'feed'"):
        if host(row["location"]) == busy:
            store.connection.execute(
                "UPDATE source SET next_poll_at = max(next_poll_at, ?) WHERE id = ?",
                (timestamp(until), row["id"]),
            )
