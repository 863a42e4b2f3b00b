"""Changes, done or rehearsed: a dry run is the same change on a throw-away copy of the state.

So a dry run meets the same refusals as the change itself and can't drift from it.
"""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.state import State
from daemon.store import FILE
from daemon.store.facts import OPERATOR

if TYPE_CHECKING:
    from daemon.store import Store


@dataclass(frozen=True, slots=True)
class Change:
    """One event that a command appended, or would append, to the audit log."""

    action: str  #: ``fact.approve``
    subject: str  #: ``fact:12``
    before: str | None  #: state before; None where there was none
    after: str | None
    reason: str

    def __str__(self) -> str:
        """Return the change on one line."""
        moved = f": {self.before} -> {self.after}" if self.before and self.after else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.action} {self.subject}{moved}{why}"

    def as_json(self) -> dict[str, str | None]:
        """Return the change as it is printed with ``--json``."""
        return {
            "action": self.action,
            "subject": self.subject,
            "from": self.before,
            "to": self.after,
            "reason": self.reason,
        }


def actor() -> str:
    """Return who acts, for the audit log: that it is an operator, and the user's name."""
    user = os.getuid()  # not $LOGNAME, which anyone can set
    try:
        return f"{OPERATOR}:{pwd.getpwuid(user).pw_name}"
    except KeyError:  # a container's user may have no name
        return f"{OPERATOR}:uid {user}"


@dataclass(frozen=True, slots=True)
class Changing:
    """A state, its open store and the changes made through it."""

    state: State
    store: Store
    _since: int  #: last event before

    def changes(self) -> tuple[Change, ...]:
        """Return what was changed so far; other processes' changes are left out."""
        rows = self.store.rows(
            "SELECT action, subject, data FROM event WHERE seq > ? AND actor = ? ORDER BY seq",
            self._since,
            self.store.actor,
        )
        return tuple(_change(row) for row in rows)


def _change(row: sqlite3.Row) -> Change:
    data = json.loads(row["data"])
    return Change(
        row["action"],
        row["subject"],
        data.get("from") or None,
        data.get("to"),
        data.get("reason", ""),
    )


@contextmanager
def changing(state: State, *, dry_run: bool) -> Iterator[Changing]:
    """Open the store for a change, or with ``dry_run`` a copy that is dropped after the block."""
    if not dry_run:
        with state.store(actor()) as store:
            yield _begin(state, store)
        return
    with tempfile.TemporaryDirectory(prefix="wised-") as folder:
        copy = _copy(state, Path(folder))
        with copy.store(actor()) as store:
            yield _begin(copy, store)


def _begin(state: State, store: Store) -> Changing:
    last = store.one("SELECT coalesce(max(seq), 0) AS seq FROM event")
    assert last is not None, "an aggregate has a row"
    return Changing(state, store, last["seq"])


def _copy(state: State, folder: Path) -> State:
    """Copy the database and link each release, so that deleting one deletes the link only."""
    with state.store(read_only=True) as store, closing(sqlite3.connect(folder / FILE)) as copy:
        store.connection.backup(copy)
    twin = State(folder)
    twin.releases.mkdir()
    for release in sorted(state.releases.iterdir()):
        (twin.releases / release.name).symlink_to(release.resolve())
    twin.config_file.symlink_to(state.config_file.resolve())
    return twin
