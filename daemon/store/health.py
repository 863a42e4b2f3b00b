"""Whether the database is sound, how large it is, and making it smaller."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from daemon.store.database import Store

MOST = 20  #: problems that are listed


@dataclass(frozen=True, slots=True)
class Size:
    """How much room the database takes, in bytes."""

    total: int
    unused: int  #: pages of deleted rows


def page_problems(connection: sqlite3.Connection, *, full: bool = False) -> list[str]:
    """Return what SQLite finds wrong with the file's pages; ``full`` looks at indexes too."""
    pragma = "integrity_check" if full else "quick_check"
    found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({MOST})")]
    return [] if found == ["ok"] else found


def problems(store: Store, *, full: bool = False) -> list[str]:
    """Return what is wrong with the database, without the audit log."""
    found = page_problems(store.connection, full=full)
    for row in store.connection.execute("PRAGMA foreign_key_check").fetchmany(MOST):
        found.append(
            f"row {row['rowid']} of {row['table']} refers to a {row['parent']} that is gone"
        )
    return found


def size(store: Store) -> Size:
    """Return how large the database is."""
    pages, free, page = (
        int(store.connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return Size(pages * page, free * page)


def vacuum(store: Store, reason: str, now: datetime) -> int:
    """Rewrite the file without its unused pages and record that; return the bytes given back."""
    before = size(store).total
    store.connection.execute("VACUUM")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    freed = before - size(store).total
    with store.write():
        store.event("db.vacuum", "db:wised", {"reason": reason, "freed_bytes": freed}, now)
    return freed
