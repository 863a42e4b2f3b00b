"""Look through what lies on the disk once a week: damage is found before it is needed.

A start looks only at the release that answers; this looks at the database's pages and at every
release that could be gone back to. What was found is an event, and the status tells it.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta

from daemon import invariants
from daemon.errors import IntegrityError, NotReadable
from daemon.faults import fault
from daemon.state import State
from daemon.store import Store, health

INSPECTED = "state.inspect"
EVERY = timedelta(days=7)
AGAIN = timedelta(days=1)  #: after damage was found


def is_due(store: Store, now: datetime) -> bool:
    """Tell whether to look again; a new state is looked at when it is a week old."""
    last = _last(store)
    row = last or store.one("SELECT at FROM event ORDER BY seq LIMIT 1")
    if row is None:
        return False
    since = now - datetime.fromisoformat(row["at"])
    # Before it was: a clock that ran ahead has been set back since.
    return not timedelta(0) <= since < (AGAIN if _damage(last) else EVERY)


def inspect(state: State, store: Store, now: datetime) -> list[str]:
    """Look through the state, record what is damaged or can't be read, and return it.

    Raises IntegrityError for a damaged database, in which nothing should be written any more.
    """
    if problems := health.problems(store):
        raise IntegrityError(
            f"the database is damaged: {problems[0]}",
            hint="restore a backup made by wised db backup",
        )
    found = list(invariants.bad_files(state, store, (IntegrityError, NotReadable)))
    with store.write():
        store.event(INSPECTED, "state", {"damage": found}, now)
    fault("inspect.recorded")
    return found


def damage(store: Store) -> tuple[str, ...]:
    """Return what the last look found damaged."""
    return _damage(_last(store))


def _last(store: Store) -> sqlite3.Row | None:
    return store.one(
        "SELECT at, data FROM event WHERE subject = 'state' AND action = ?"
        " ORDER BY seq DESC LIMIT 1",
        INSPECTED,
    )


def _damage(look: sqlite3.Row | None) -> tuple[str, ...]:
    return () if look is None else tuple(json.loads(look["data"])["damage"])
