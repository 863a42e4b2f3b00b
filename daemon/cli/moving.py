"""A feed's URL, changed by the operator: a feed that says it has moved is never believed alone."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from daemon import schedule
from daemon.cli import registry
from daemon.errors import Conflict, UsageError
from daemon.store import Store, timestamp
from ingest import redact
from ingest.urls import host


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a feed's URL."""

    result: str  #: the source's state, or ``already_there``
    warning: str  #: what the operator should look at; may be empty


def set_url(store: Store, name: str, url: str | None, reason: str, now: datetime) -> Moved:
    """Give a feed another URL, by default the one that it proposes; it is due at once.

    What was gone is asked again, what was paused stays paused. Raises NotFound, UsageError,
    Conflict for a removed source or when nothing is proposed, Refused for the operator's own.
    """
    registry.check_not_ours(name)
    with store.write():
        source = registry.describe(store, name)
        row = registry.raw(store, name)
        assert row is not None, "it was described"
        if source.kind != "feed":
            raise UsageError(f"{name} is a log, not a feed", hint="remove it, and add another")
        if source.state == "removed":
            raise Conflict(
                "cannot set the URL of a source that is removed", hint="wised source add"
            )
        new = url or _proposed(row, name)
        registry.check_url(new)
        if new == row["location"]:
            return Moved("already_there", "")
        state = "active" if source.state == "gone" else source.state
        values = {"location": new, "state": state, "next_poll_at": timestamp(now)}
        store.table("source").update(source.id, {**registry.unread(), **values})
        data = {"name": name, "from": source.location, "to": redact(new), "reason": reason}
        store.event("source.set_url", f"source:{source.id}", data, now)
    return Moved(state, _warning(source, row["location"], new))


def _proposed(row: sqlite3.Row, name: str) -> str:
    move = schedule.move(row["moved_to"], row["moved_polls"])
    if move is None or not move.is_proposed:
        raise Conflict(f"{name} proposes no other URL", hint=f"wised source set-url {name} URL")
    return move.url


def _warning(source: registry.Described, old: str, new: str) -> str:
    if host(old) == host(new):
        return ""
    return (
        f"The host changes from {host(old)} to {host(new)}, and the source stays "
        f"{source.tier}: make sure that the same people run it."
    )
