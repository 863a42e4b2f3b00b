"""How the service stands, read from the state folder alone: it answers with the daemon down too."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from daemon import attempts, checks, inspection, quotas, releases, schedule
from daemon.attempts import Waiting
from daemon.checks import Watched
from daemon.observe.pulse import Work
from daemon.quotas import Dropped
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store, facts, keys, shards
from daemon.store.facts import Fact
from daemon.store.shards import Shard
from ingest import Names, redact, same_object

#: failed polls in a row from which a source counts as unhealthy; one or two are weather
FAILING_FROM = 3
DISPUTES_TOLD = 5  #: slots with several answers that a problem line each is given to
MAX_STATUS_BYTES = 4_000_000  #: of `status.json` that is looked at
#: a running daemon writes `status.json` every few seconds; without a word for longer it hangs
SILENT_SECONDS = 120.0
#: states of facts that are on their way into a release
WAITING = ("received", "pending", "conflicting", "quarantined", "approved")
#: all that ever came; of each source only the newest are kept
LETTERS = (
    "SELECT (SELECT count(*) FROM dead_letter)"
    " + (SELECT coalesce(sum(letters_dropped), 0) FROM source) AS n"
)
#: marked entries; those of removed sources are never read.
#: NOTE: CROSS JOIN has SQLite begin with the few marks and not with all entries
UNREAD = (
    "SELECT count(*) AS n FROM unread CROSS JOIN entry ON entry.id = entry_id"
    " CROSS JOIN source ON source.id = source_id WHERE source.state != 'removed'"
)


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
class Word:
    """What a daemon says of itself."""

    work: Work | None = None  #: what it does now; None when it waits
    trouble: tuple[str, ...] = ()  #: why it is not ready for work; empty when it is


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
    unread: int  #: entries that a language model is still to read
    disputes: tuple[tuple[Fact, ...], ...]  #: promoted facts of one slot that say different things
    word: Word  #: of the daemon; an empty one when it doesn't run
    waiting: tuple[Waiting, ...] = ()  #: batches that failed and are tried again, the next first
    probation: Watched | None = None  #: of the release that answers; None when it is on none
    damage: tuple[str, ...] = ()  #: what the last look through the state found damaged
    free_bytes: int = 0  #: on the disk of the state folder

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what makes the service unhealthy; empty when nothing does."""
        found = [f"the daemon: {why}" for why in self.word.trouble]
        found += [
            f"source {s.name} failed {s.failures} times in a row"
            for s in self.sources
            if s.state == "active" and s.failures >= FAILING_FROM
        ]
        found += [f"source {s.name} is gone" for s in self.sources if s.state == "gone"]
        found += [f"damaged: {what}" for what in self.damage]
        found += [f"{kind} is on hold: {reason}" for kind, reason in self.holds.items()]
        if self.newest.state == "refused" and self.newest.reason not in releases.CUT_SHORT:
            found.append(f"release {self.newest.number} was refused: {self.newest.reason}")
        found += [_dispute(one) for one in self.disputes[:DISPUTES_TOLD]]
        if (more := len(self.disputes) - DISPUTES_TOLD) > 0:
            found.append(f"{more} more slots have several answers")
        return tuple(found)


def _dispute(one: tuple[Fact, ...]) -> str:
    said = ", ".join(f"fact {f.id} ({f.subject}) {f.object!r}" for f in one)
    return f"one slot, several answers: {said}; wised fact retract ID takes back what is wrong"


def read(state: State, store: Store, now: datetime) -> Status:
    """Read how the service stands; ``store`` may be open read-only."""
    daemon = state.daemon()
    return collect(store, daemon, _word(state, now) if daemon is not None else Word(), now)


def collect(store: Store, daemon: str | None, word: Word, now: datetime) -> Status:
    """Read how the service stands where it is known who holds the lock and what that says."""
    every = releases.newest_first(releases.all_releases(store))
    current, holds = releases.promoted(store), releases.holds(store)
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
        holds=holds,
        dead_letters=_count(store, LETTERS),
        dropped=quotas.since(store, now - quotas.DAY),
        unread=_count(store, UNREAD),
        disputes=tuple(_disputes(store)),
        word=word,
        waiting=tuple(attempts.waiting(store)),
        probation=None if "promote" in holds else checks.watched(store, current, now),
        damage=inspection.damage(store),
        free_bytes=shutil.disk_usage(store.folder).free,
    )


def _disputes(store: Store) -> Iterator[tuple[Fact, ...]]:
    """Yield the promoted facts that share a slot, since names became one, and disagree."""
    if not keys.were_renewed(store):
        return  # a slot has one, and to look through all of them takes a while
    names = keys.names(store)
    for ids in keys.disputed(store):
        one = tuple(facts.get(store, number) for number in ids)
        if not all(_agree(names, one[0], other) for other in one[1:]):
            yield one


def _agree(names: Names, one: Fact, other: Fact) -> bool:
    return same_object(names.said(one.subject, one.object), names.said(one.subject, other.object))


def _word(state: State, now: datetime) -> Word:
    """Return what the running daemon wrote of itself, and whether it has fallen silent."""
    last, word = datetime.fromtimestamp(state.lock_file.stat().st_mtime, UTC), Word()
    try:
        with state.status_file.open("rb") as file:
            found = json.loads(file.read(MAX_STATUS_BYTES))
        last = max(last, datetime.fromisoformat(found["at"]))
        word = Word(_work(found["work"]), tuple(str(why) for why in found["daemon"]["trouble"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass  # missing or damaged: then only its age counts
    if (silent := (now - last).total_seconds()) > SILENT_SECONDS:
        return Word(None, (f"it has written nothing for {silent / 60:.0f} min: it hangs",))
    return word


def _work(found: Any) -> Work | None:
    if found is None:
        return None
    since = datetime.fromisoformat(found["since"]).astimezone(UTC)
    done, total = int(found["done"]), int(found["total"])
    return Work(str(found["stage"]), since, str(found["doing"]), done, total)


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
