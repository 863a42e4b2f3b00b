"""Look through what lies on the disk once a week: damage is found before it is needed.

A start looks only at the release that answers; this looks at the database's pages and at every
release that could be gone back to. What was found is an event, and the status tells it.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from daemon import invariants, releases
from daemon.errors import IntegrityError, NotReadable
from daemon.faults import fault
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store, health

INSPECTED = "state.inspect"
EVERY = timedelta(days=7)
AGAIN = timedelta(days=1)  #: after damage was found


def is_due(store: Store, now: datetime) -> bool:
    """Tell whether to look again; a new state is looked at when it is a week old."""
    row = store.one(
        "SELECT at FROM event WHERE subject = 'state' AND action = ? ORDER BY seq DESC LIMIT 1",
        INSPECTED,
    ) or store.one("SELECT at FROM event ORDER BY seq LIMIT 1")
    if row is None:
        return False
    since = now - datetime.fromisoformat(row["at"])
    # Before it was: a clock that ran ahead has been set back since.
    return not timedelta(0) <= since < (AGAIN if damage(store) else EVERY)


def inspect(state: State, store: Store, now: datetime) -> list[str]:
    """Look through the state, record what is damaged or can't be read, and return it.

    Raises IntegrityError for a damaged database, in which nothing should be written any more.
    """
    if problems := health.problems(store):
        raise IntegrityError(
            f"the database is damaged: {problems[0]}",
            hint="restore a backup made by wised db backup",
        )
    looked = [_trouble(state, release) for release in invariants.able_to_answer(store)]
    found = [trouble for trouble in looked if trouble]
    with store.write():
        store.event(INSPECTED, "state", {"damage": found}, now)
    fault("inspect.recorded")
    return found


def _trouble(state: State, release: Release) -> str:
    try:
        releases.check_files(state, release)
    except (IntegrityError, NotReadable) as error:
        return str(error)
    return ""


def damage(store: Store) -> tuple[str, ...]:
    """Return what the last look found damaged."""
    row = store.one(
        "SELECT data FROM event WHERE subject = 'state' AND action = ? ORDER BY seq DESC LIMIT 1",
        INSPECTED,
    )
    return () if row is None else tuple(json.loads(row["data"])["damage"])
