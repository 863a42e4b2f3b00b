"""Read-only questions to the store that only the command line asks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.errors import UsageError
from daemon.store import Store, facts, keys, timestamp
from daemon.store.facts import Fact
from daemon.store.lifecycle import FACT_STATES
from ingest import fold


@dataclass(frozen=True, slots=True)
class Filter:
    """Which facts to list; None leaves a condition out."""

    state: str | None = None
    source: int | None = None  #: id of a source that supports the fact
    subject: str | None = None  #: a name of it or part of one, whatever its case and accents
    after: int = 0  #: ids above
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the audit log."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    data: Mapping[str, object]


def listed(store: Store, wanted: Filter) -> list[Fact]:
    """Return the facts that pass the filter, oldest first; raises UsageError for a bad state."""
    if wanted.state is not None and wanted.state not in FACT_STATES:
        raise UsageError(
            f"{wanted.state!r} is no state of a fact", hint=f"one of {', '.join(FACT_STATES)}"
        )
    known = keys.names(store)
    store.connection.create_function("folded", 1, fold, deterministic=True)
    store.connection.create_function("named", 1, known.key, deterministic=True)
    rows = store.rows(
        "SELECT id FROM fact WHERE (?1 IS NULL OR state = ?1)"
        " AND (?2 IS NULL OR instr(folded(subject), ?2) OR named(subject) = ?6)"
        " AND (?3 IS NULL OR id IN (SELECT fact_id FROM evidence"
        "  JOIN entry ON entry.id = entry_id WHERE source_id = ?3))"
        " AND id > ?4 ORDER BY id LIMIT ?5",
        wanted.state,
        None if wanted.subject is None else fold(wanted.subject),
        wanted.source,
        wanted.after,
        wanted.limit,
        None if wanted.subject is None else known.key(wanted.subject),
    )
    return [facts.get(store, row["id"]) for row in rows]


def waiting(store: Store, states: Sequence[str], source: str | None) -> list[int]:
    """Return the ids of the facts in ``states``, oldest first, of one source if so asked.

    Raises NotFound for an unknown source.
    """
    from daemon.cli import registry

    source_id = None if source is None else registry.describe(store, source).id
    rows = store.rows(
        "SELECT id FROM fact WHERE state IN (SELECT value FROM json_each(?1))"
        " AND (?2 IS NULL OR id IN (SELECT fact_id FROM evidence"
        "  JOIN entry ON entry.id = entry_id WHERE source_id = ?2)) ORDER BY id",
        json.dumps(list(states)),
        source_id,
    )
    return [row["id"] for row in rows]


def _event(row: sqlite3.Row) -> Event:
    return Event(
        row["seq"],
        datetime.fromisoformat(row["at"]),
        row["actor"],
        row["action"],
        row["subject"],
        json.loads(row["data"]),
    )


def history(store: Store, subject: str) -> list[Event]:
    """Return what happened to one thing (``fact:12``), oldest first."""
    rows = store.rows("SELECT * FROM event WHERE subject = ? ORDER BY seq", subject)
    return [_event(row) for row in rows]


def latest_events(store: Store, limit: int, subject: str | None = None) -> list[Event]:
    """Return the newest events, of one thing (``fact:12``) if so asked, oldest of them first."""
    if subject is None:
        rows = store.rows("SELECT * FROM event ORDER BY seq DESC LIMIT ?", limit)
    else:
        rows = store.rows(
            "SELECT * FROM event WHERE subject = ? ORDER BY seq DESC LIMIT ?", subject, limit
        )
    return [_event(row) for row in reversed(rows)]


def export(store: Store, since: datetime | None) -> Iterator[dict[str, object]]:
    """Yield every event from ``since`` on as it is stored, with its hashes, oldest first."""
    rows = store.connection.execute(
        "SELECT * FROM event WHERE at >= ? ORDER BY seq", (timestamp(since) if since else "",)
    )
    for row in rows:
        yield {**dict(row), "data": json.loads(row["data"])}


def releases_with(store: Store, fact_id: int) -> list[int]:
    """Return the numbers of the releases that hold a fact."""
    rows = store.rows(
        "SELECT release FROM release_fact WHERE fact_id = ? ORDER BY release", fact_id
    )
    return [row["release"] for row in rows]


def fact_counts(store: Store) -> dict[int, int]:
    """Return how many facts each release holds that holds any."""
    rows = store.rows("SELECT release, count(*) AS n FROM release_fact GROUP BY release")
    return {row["release"]: row["n"] for row in rows}
