"""What stands in the tables about the future, for when the wall clock was set back.

All waits are kept as times of the wall clock. After a step back they lie too far away; to try a
thing early does no harm.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from daemon.store.database import Store, timestamp

#: what waits, and until when
WAITS = (("source", "next_poll_at"), ("batch", "next_attempt_at"), ("unread", "next_at"))
#: by so much a clock may have been corrected without a word
SLACK = timedelta(seconds=5)


def is_behind(store: Store, now: datetime) -> bool:
    """Tell whether the clock shows less than when the newest event was recorded."""
    row = store.one("SELECT at FROM event ORDER BY seq DESC LIMIT 1")
    return row is not None and datetime.fromisoformat(row["at"]) > now + SLACK


def let_all_be_due(store: Store, now: datetime) -> None:
    """Let all be polled, tried and read at once that waits for a time to come."""
    at = timestamp(now)
    with store.write():
        for table, column in WAITS:
            store.connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE {column} > ?", (at, at)
            )
