"""Entries that keep changing: a feed that cannot make up its mind, or whose text has the time."""

from __future__ import annotations

from datetime import datetime, timedelta

from daemon.store import Store, timestamp

RECENTLY = timedelta(hours=24)
#: changes of content from which an entry's new facts wait for a person
MAX_RECENT_CHANGES = 3
MAX_CHANGES = 24  #: ever; lemon24/reader stops at as many (HASH_CHANGED_LIMIT)


def reason(store: Store, source_id: int, key: str, now: datetime) -> str | None:
    """Return why the facts of an entry are to be quarantined; None when they may go on.

    Its newest content is stored already; the content that it came with first is no change.
    """
    row = store.one(
        "SELECT count(*) AS ever, coalesce(sum(received_at > ?), 0) AS recent FROM entry"
        " WHERE source_id = ? AND key = ?"
        " AND id > (SELECT min(id) FROM entry WHERE source_id = ? AND key = ?)",
        timestamp(now - RECENTLY),
        source_id,
        key,
        source_id,
        key,
    )
    assert row is not None, "count(*) has a row"
    if row["recent"] >= MAX_RECENT_CHANGES:
        return f"the entry that says so changed {row['recent']} times in 24 hours"
    if row["ever"] >= MAX_CHANGES:
        return f"the entry that says so changed {row['ever']} times"
    return None
