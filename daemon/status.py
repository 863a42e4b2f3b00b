"""How the service stands, read from the state folder alone: it answers with the daemon down too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon import quotas, releases, schedule
from daemon.observe.pulse import Work
from daemon.quotas import Dropped
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store, facts, shards
from daemon.store.shards import Shard
from ingest import redact

#: failed polls in a row from which a source counts as unhealthy; one or two are weather
FAILING_FROM = 3
MAX_STATUS_BYTES = 4_000_000  #: of `status.json` that is looked at
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
    location: str = ""  #: as shown: without passwords and query values
    proposed_url: str | None = None  #: where it says it has moved for good; as shown

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
    dropped: tuple[Dropped, ...]  #: facts over a quota in the last 24 hours, by source and quota
    work: Work | None  #: what the daemon does now; None when it waits or doesn't run

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what makes the service unhealthy; empty when nothing does."""
        found = [
            f"source {s.name} failed {s.failures} times in a row"
            for s in self.sources
            if s.state == "active" and s.failures >= FAILING_FROM
        ]
        found += [f"source {s.name} is gone" for s in self.sources if s.state == "gone"]
        found += [f"{kind} is on hold: {reason}" for kind, reason in self.holds.items()]
        if self.newest.state == "refused":
            found.append(f"release {self.newest.number} was refused: {self.newest.reason}")
        return tuple(found)


def read(state: State, store: Store, now: datetime) -> Status:
    """Read how the service stands; ``store`` may be open read-only."""
    daemon = state.daemon()
    return collect(store, daemon, _work(state) if daemon is not None else None, now)


def collect(store: Store, daemon: str | None, work: Work | None, now: datetime) -> Status:
    """Read how the service stands where it is known who holds the lock and what that does."""
    every = releases.newest_first(releases.all_releases(store))
    current = releases.promoted(store)
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
        dropped=quotas.since(store, now - quotas.DAY),
        work=work,
    )


def _work(state: State) -> Work | None:
    """Return what the running daemon wrote of itself; None when that is missing or unreadable."""
    try:
        with state.status_file.open("rb") as file:
            found = json.loads(file.read(MAX_STATUS_BYTES))["work"]
        since = datetime.fromisoformat(found["since"]).astimezone(UTC)
        done, total = int(found["done"]), int(found["total"])
        return Work(str(found["stage"]), since, str(found["doing"]), done, total)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _count(store: Store, sql: str, release: Release | None = None) -> int:
    row = store.one(sql) if release is None else store.one(sql, release.number)
    assert row is not None, "count(*) has a row"
    return int(row["n"])


def _oldest(store: Store) -> tuple[int, str, datetime] | None:
    found = [fact for state in WAITING for fact in facts.in_states(store, (state,), limit=1)]
    if not found:
        return None
    oldest = min(found, key=lambda f: (f.received_at, f.id))
    return oldest.id, oldest.state, oldest.received_at


def _sources(store: Store) -> tuple[SourceHealth, ...]:
    rows = store.rows(
        "SELECT name, state, failures, last_error, last_ok_at, location, moved_to, moved_polls"
        " FROM source WHERE state != 'removed' ORDER BY name"
    )
    return tuple(_health(row) for row in rows)


def _health(row: sqlite3.Row) -> SourceHealth:
    ok, move = row["last_ok_at"], schedule.move(row["moved_to"], row["moved_polls"])
    return SourceHealth(
        row["name"],
        row["state"],
        row["failures"],
        row["last_error"],
        datetime.fromisoformat(ok) if ok else None,
        redact(row["location"]),
        redact(move.url) if move is not None and move.is_proposed else None,
    )
