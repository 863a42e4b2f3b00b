"""Entries that a language model is still to read: marked when they are stored, read one by one.

A read takes seconds to minutes. It holds no transaction and no poll; what it finds, and that the
entry was read, are written in one transaction after it.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from daemon import quotas
from daemon.config import Config
from daemon.errors import WisedError
from daemon.keeping import Stored, keep
from daemon.quotas import Dropped
from daemon.store import Store, facts, timestamp
from ingest import Extractor, Item, Reader, ReaderError, Reading, passage, read

MAX_RAW_CHARS = 4096
_ENTRY = (
    "SELECT unread.text, unread.attempts, entry.id, entry.key, entry.title, entry.published_at,"
    " entry.received_at, source.id AS source_id, source.name, source.tier FROM unread"
    " JOIN entry ON entry.id = entry_id JOIN source ON source.id = source_id"
    " WHERE source.state IN ('active', 'gone')"
)


@dataclass(frozen=True, slots=True)
class _Unread:
    entry: Stored
    text: str
    title: str
    source: str
    attempts: int


def is_for_reader(item: Item, config: Config) -> bool:
    """Tell whether a reader is wanted: no payload spoke, and no pattern found anything."""
    wanted = config.extraction.reader != "none" and bool(config.relations)
    return wanted and item.entry.payload is None and not item.candidates


def text_of(item: Item) -> str:
    """Return what there is to read of an entry."""
    return f"{item.entry.title}\n{item.entry.text}".strip()


def mark(store: Store, entry_id: int, item: Item, now: datetime) -> None:
    """Note that an entry is to be read, inside the transaction that stores it."""
    if text := text_of(item):
        row = {"entry_id": entry_id, "text": text, "next_at": timestamp(now)}
        store.table("unread").insert(row, ignore=True)


def examine(text: str, config: Config, reader: Reader, extract: Extractor) -> Reading:
    """Return what a reader finds in a text; stores nothing. Raises ReaderError."""
    section = config.extraction
    asked = passage(text, extract.relations, section.max_text_chars, section.max_facts_per_entry)
    return Reading() if asked is None else read(asked, reader, extract)


class Reads:
    """Reads what is marked; it lasts as long as the daemon, for when it may try again."""

    def __init__(
        self, store: Store, config: Config, reader: Reader | None, extract: Extractor, log: Any
    ) -> None:
        self._store, self._config, self._reader = store, config, reader
        self._extract, self._log = extract, log
        self._not_before: datetime | None = None

    def clock_was_set(self) -> None:
        """Try again at once: what was waited for may lie far away by the new clock."""
        self._not_before = None

    def run(self, clock: Callable[[], datetime]) -> int:
        """Read the oldest marked entries, up to the configured number; return what got on.

        The first failure ends it: what is wrong with a reader is not tried on every entry. An
        entry's attempt counts only where its text may be to blame.
        """
        if self._reader is None or (self._not_before and clock() < self._not_before):
            return 0
        done = 0
        for one in _due(self._store, self._config, clock()):
            try:
                found = self._read(one, self._reader)
            except ReaderError as why:
                if why.code == "reader.stopped":
                    return done
                if not done:
                    self._not_before = clock() + self._wait
                return done + self._failed(one, why, clock())
            self._keep(one, found, clock())
            done += 1
        return done

    def _read(self, one: _Unread, reader: Reader) -> Reading:
        """Read one entry; a bug that its text brings to light is its own. Raises ReaderError."""
        try:
            return examine(one.text, self._config, reader, self._extract)
        except (ReaderError, WisedError, sqlite3.Error):
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self._log.error("read.broke_off", entry=one.entry.id, exception=trace)
            what = f"{type(error).__name__}, which is a bug: the log has its traceback"
            raise ReaderError("reader.bug", what) from error

    @property
    def _wait(self) -> timedelta:
        return timedelta(minutes=self._config.extraction.retry_minutes)

    def _keep(self, one: _Unread, found: Reading, now: datetime) -> None:
        with self._store.write():
            # It was read with nothing locked: the source may have been removed meanwhile.
            if self._store.one(f"{_ENTRY} AND entry.id = ?", one.entry.id) is None:
                return
            entry = replace(one.entry, received=_counted(self._store, one.entry.received, now))
            new = keep(self._store, entry, found.candidates, now)
            dropped: tuple[Dropped, ...] = ()
            if new:
                dropped = quotas.enforce(self._store, one.entry.source_id, new, self._config, now)
            self._store.table("unread").delete(one.entry.id)
        for over in dropped:
            self._log.warning(
                "facts.dropped", source=over.source, quota=over.quota, facts=over.facts
            )
        fields = {"entry": one.entry.id, "source": one.source, "facts": len(found.candidates)}
        self._log.info("entry.read", **fields, dropped=dict(found.dropped))

    def _failed(self, one: _Unread, why: ReaderError, now: datetime) -> int:
        """Put an entry off, or give it up; return 1 when its attempt counts, else 0."""
        attempts = one.attempts + why.is_entrys_own
        fields = {"entry": one.entry.id, "source": one.source, "attempts": attempts}
        self._log.warning("reader.failed", **fields, error=str(why), hint=why.hint or "")
        if not why.is_entrys_own:
            return 0
        with self._store.write():
            if attempts >= self._config.extraction.max_attempts:
                self._give_up(one, why, attempts, now)
            else:
                put_off = {"attempts": attempts, "next_at": timestamp(now + self._wait)}
                self._store.table("unread").update(one.entry.id, put_off)
        return 1

    def _give_up(self, one: _Unread, why: ReaderError, attempts: int, now: datetime) -> None:
        row = {
            "source_id": one.entry.source_id,
            "received_at": timestamp(now),
            "location": f"entry {one.title[:80]}".rstrip(),
            "code": why.code,
            "message": f"read {attempts} times in vain: {why.message}",
            "raw": one.text[:MAX_RAW_CHARS],
        }
        self._store.table("dead_letter").insert(row, ignore=True)
        self._store.table("unread").delete(one.entry.id)


def _counted(store: Store, received: datetime, now: datetime) -> datetime:
    """Return when an entry counts as received that is read only now.

    While facts are dated ahead of a clock that was set back, its facts are news among them.
    """
    at = facts.receive_time(store, now)
    return at if at > now else min(received, at)


def _due(store: Store, config: Config, now: datetime) -> list[_Unread]:
    rows = store.rows(
        f"{_ENTRY} AND next_at <= ? ORDER BY entry.id LIMIT ?",
        timestamp(now),
        config.extraction.max_entries_per_cycle,
    )
    return [_unread(row) for row in rows]


def _unread(row: sqlite3.Row) -> _Unread:
    published = row["published_at"] and datetime.fromisoformat(row["published_at"])
    received = datetime.fromisoformat(row["received_at"])
    entry = Stored(row["id"], row["key"], row["source_id"], row["tier"], published, received)
    return _Unread(entry, row["text"], row["title"], row["name"], row["attempts"])
