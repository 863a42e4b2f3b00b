"""How the service stands, read from the state folder alone: it answers with the daemon down too."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from daemon import progress, releases
from daemon.progress import Work
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store, facts, shards
from daemon.store.shards import Shard

#: failed polls in a row from which a source counts as unhealthy; one or two are weather
FAILING_FROM = 3
#: states of facts that are on their way into a release
WAITING = ("received", "pending", "conflicting", "quarantined", "approved")


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How a source's polls went."""

    name: str
    state: str  #: ``active``, ``paused`` or ``gone``
    failures: int  #: in a row
    last_error: str | None
    last_ok_at: datetime | None  #: None before the first good poll

    @property
    def is_failing(self) -> bool:
        """Tell whether the last poll of a source that is polled went wrong."""
        return self.state == "gone" or (self.state == "active" and self.failures > 0)


@dataclass(frozen=True, slots=True)
class Status:
    """The service at one moment."""

    daemon: str | None  #: who holds the lock; None when no daemon runs
    release: Release  #: the one that answers
    held: int  #: facts in it
    shards: tuple[Shard, ...]  #: of it; none with the paper's method
    queue: Mapping[str, int]  #: facts by state
    oldest_waiting: tuple[int, str, datetime] | None  #: fact, its state, when it was received
    sources: tuple[SourceHealth, ...]
    gate: Release | None  #: the newest release that was measured
    newest: Release  #: the newest release of all
    holds: Mapping[str, str]  #: reason by kind of work
    dead_letters: int
    work: Work | None = None  #: what the daemon does now; None when it waits or doesn't run

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what makes the service unhealthy; empty when nothing does."""
        found = [
            f"source {s.name} failed {s.failures} times in a row"
            for s in self.sources
            if s.state == "active" and s.failures >= FAILING_FROM
        ]
        found += [f"{kind} is on hold: {reason}" for kind, reason in self.holds.items()]
        if self.newest.state == "refused":
            found.append(f"release {self.newest.number} was refused: {self.newest.reason}")
        return tuple(found)


def read(state: State, store: Store) -> Status:
    """Read how the service stands; ``store`` may be open read-only."""
    every = releases.newest_first(releases.all_releases(store))
    current = releases.promoted(store)
    daemon = state.daemon()
    return Status(
        daemon=daemon,
        release=current,
        held=_count(store, "SELECT count(*) AS n FROM release_fact WHERE release = ?", current),
        shards=tuple(shards.of_release(store, current.number)),
        queue=facts.counts(store),
        oldest_waiting=_oldest(store),
        sources=_sources(store),
        gate=next((r for r in every if r.measures), None),
        newest=every[0],
        holds=releases.holds(store),
        dead_letters=_count(store, "SELECT count(*) AS n FROM dead_letter"),
        # What a killed daemon left there is no work.
        work=None if daemon is None else progress.read(state.progress_file),
    )


def _count(store: Store, sql: str, release: Release | None = None) -> int:
    row = store.one(sql) if release is None else store.one(sql, release.number)
    assert row is not None, "count(*) has a row"
    return int(row["n"])


def _oldest(store: Store) -> tuple[int, str, datetime] | None:
    # One state a query: the index on states has the ids in order, so each is one look.
    found = [
        row
        for state in WAITING
        for row in store.rows(
            "SELECT received_at, id, state FROM fact WHERE state = ? ORDER BY id LIMIT 1", state
        )
    ]
    if not found:
        return None
    since, fact, state = min(map(tuple, found))
    return fact, state, datetime.fromisoformat(since)


def _sources(store: Store) -> tuple[SourceHealth, ...]:
    rows = store.rows(
        "SELECT name, state, failures, last_error, last_ok_at FROM source"
        " WHERE state != 'removed' ORDER BY name"
    )
    return tuple(_health(row) for row in rows)


def _health(row: sqlite3.Row) -> SourceHealth:
    ok = row["last_ok_at"]
    return SourceHealth(
        row["name"],
        row["state"],
        row["failures"],
        row["last_error"],
        datetime.fromisoformat(ok) if ok else None,
    )
