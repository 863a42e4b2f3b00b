"""What old rows lose: the text of entries that no fact speaks of, and dead letters over a bound.

An entry keeps its row, its hashes, title and link, so one that is still in its feed is not taken
for new, and a fact keeps its quotes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.config import Config
from daemon.store import Store, timestamp

STEP_ROWS = 500  #: that a step looks at or deletes, so that no transaction keeps others waiting
REST = timedelta(hours=1)  #: between two walks through all rows
KEEP_LETTERS = 1000  #: the newest of each source
#: states of facts that need no text: they came to nothing, and no person decided on them
UNUSED = ("dropped", "duplicate", "known")
_FIRST = ("", 0)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a step did."""

    texts: int = 0  #: entries that lost their text
    letters: int = 0  #: dead letters that were deleted; their source counts them on


class Retention:
    """A walk through the old rows in small steps, begun anew an hour after it has ended."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._keep_texts = timedelta(days=config.ingest.keep_entry_text_days)
        self._after = _FIRST  #: when the last entry that was looked at came, and its number
        self._not_before: datetime | None = None

    def step(self, now: datetime) -> Trimmed:
        """Do one step, two small transactions at most; nothing while the walk rests."""
        # More than an hour off, it was set by a clock that has been set back since.
        if self._not_before is not None and timedelta(0) < self._not_before - now <= REST:
            return Trimmed()
        looked, texts = self._texts(now)
        letters = self._letters()
        if looked < STEP_ROWS and not letters:
            self._after, self._not_before = _FIRST, now + REST
        return Trimmed(texts, letters)

    def _texts(self, now: datetime) -> tuple[int, int]:
        """Look at the next old entries with a text; return how many, and how many lost it."""
        rows = self._store.rows(
            "SELECT id, received_at,"
            " EXISTS (SELECT 1 FROM unread WHERE entry_id = entry.id)"
            " OR EXISTS (SELECT 1 FROM evidence JOIN fact ON fact.id = fact_id"
            "  WHERE entry_id = entry.id AND state NOT IN (SELECT value FROM json_each(?)))"
            " AS is_needed FROM entry"
            " WHERE raw != '' AND received_at < ? AND (received_at, id) > (?, ?)"
            " ORDER BY received_at, id LIMIT ?",
            json.dumps(UNUSED),
            timestamp(now - self._keep_texts),
            *self._after,
            STEP_ROWS,
        )
        if rows:
            self._after = rows[-1]["received_at"], rows[-1]["id"]
        done = [row["id"] for row in rows if not row["is_needed"]]
        if done:
            with self._store.write():
                self._store.connection.execute(
                    "UPDATE entry SET raw = '' WHERE id IN (SELECT value FROM json_each(?))",
                    (json.dumps(done),),
                )
        return len(rows), len(done)

    def _letters(self) -> int:
        """Delete the oldest dead letters of a source that has too many; return how many."""
        row = self._store.one(
            "SELECT source_id, count(*) AS letters FROM dead_letter GROUP BY source_id"
            " HAVING letters > ? LIMIT 1",
            KEEP_LETTERS,
        )
        if row is None:
            return 0
        source, count = row["source_id"], min(row["letters"] - KEEP_LETTERS, STEP_ROWS)
        with self._store.write():
            gone = self._store.connection.execute(
                "DELETE FROM dead_letter WHERE id IN"
                " (SELECT id FROM dead_letter WHERE source_id = ? ORDER BY id LIMIT ?)",
                (source, count),
            ).rowcount
            self._store.connection.execute(
                "UPDATE source SET letters_dropped = letters_dropped + ? WHERE id = ?",
                (gone, source),
            )
        return gone
