"""Facts in the store: reading them, writing new ones, moving them along."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon.errors import NotFound
from daemon.store import keys
from daemon.store.database import Store, timestamp
from ingest import Candidate

#: states in which a fact is, or is on its way to be, what the model should answer
CLAIMS_SLOT = (
    "pending",
    "conflicting",
    "quarantined",
    "known",
    "approved",
    "batched",
    "edited",
    "verified",
    "promoted",
)
#: states in which the same fact, seen again, is only more evidence
HELD = (*CLAIMS_SLOT, "failed", "rejected")
IN_CYCLE = ("batched", "edited")
OPERATOR = "operator"  #: how the actor of what a person did begins, in the audit log


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as stored."""

    id: int
    subject: str
    relation: str
    object: str
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    slot_key: str
    fact_key: str
    tier: str
    extractor: str
    state: str
    reason: str
    rev: int
    asserted_at: datetime
    received_at: datetime
    same_as: int | None
    batch_id: int | None
    attempts: int
    brought_by: int | None  #: source that it was polled from; None: brought in by hand
    vouched_by: int | None  #: most trusted source that says so, whose quota it counts against


def _fact(row: sqlite3.Row) -> Fact:
    values = dict(row)
    for name in ("prompts", "held_out"):
        values[name] = tuple(json.loads(values[name]))
    for name in ("asserted_at", "received_at"):
        values[name] = datetime.fromisoformat(values[name])
    return Fact(**values)


def get(store: Store, fact_id: int) -> Fact:
    """Return a fact; raises NotFound."""
    row = store.one("SELECT * FROM fact WHERE id = ?", fact_id)
    if row is None:
        raise NotFound(f"no fact {fact_id}", hint="wised fact list shows them")
    return _fact(row)


def in_states(store: Store, states: Iterable[str], limit: int = -1, after: int = 0) -> list[Fact]:
    """Return the facts in any of ``states`` with ids above ``after``, oldest first."""
    wanted = json.dumps(sorted(set(states)))
    rows = store.rows(
        "SELECT * FROM fact WHERE state IN (SELECT value FROM json_each(?)) AND id > ?"
        " ORDER BY id LIMIT ?",
        wanted,
        after,
        limit,
    )
    return [_fact(row) for row in rows]


def to_triage(store: Store, sizes: Sequence[int]) -> list[Fact]:
    """Return the received facts to look at next: those tried least, the oldest first.

    ``sizes`` says how many at most, by how often they were tried.
    """
    row = store.one("SELECT min(attempts) AS tries FROM fact WHERE state = 'received'")
    if row is None or row["tries"] is None:
        return []
    rows = store.rows(
        "SELECT * FROM fact WHERE state = 'received' AND attempts = ? ORDER BY id LIMIT ?",
        row["tries"],
        sizes[min(row["tries"], len(sizes) - 1)],
    )
    return [_fact(row) for row in rows]


def count_tries(store: Store, facts: Sequence[Fact], tries: int) -> None:
    """Record how often facts were tried, inside a transaction."""
    store.connection.executemany(
        "UPDATE fact SET attempts = ?, rev = rev + 1 WHERE id = ?",
        [(tries, fact.id) for fact in facts],
    )


def among(store: Store, ids: Sequence[int], states: Sequence[str], limit: int) -> list[Fact]:
    """Return the first ``limit`` of the facts named by ``ids`` that are in ``states``, in order."""
    rows = store.rows(
        "SELECT fact.* FROM json_each(?) AS wanted JOIN fact ON fact.id = wanted.value"
        " WHERE state IN (SELECT value FROM json_each(?)) ORDER BY wanted.key LIMIT ?",
        json.dumps(list(ids)),
        json.dumps(list(states)),
        limit,
    )
    return [_fact(row) for row in rows]


def key_of(store: Store, candidate: Candidate) -> str:
    """Return the key that a candidate would have as a fact."""
    said = (candidate.subject, candidate.relation, candidate.object)
    return keys.names(store).fact_key(*said)


def by_key(store: Store, key: str) -> list[Fact]:
    """Return the facts that say exactly the same, oldest first."""
    return [_fact(r) for r in store.rows("SELECT * FROM fact WHERE fact_key = ? ORDER BY id", key)]


def by_slot(store: Store, key: str) -> list[Fact]:
    """Return the facts of one slot, oldest first."""
    return [_fact(r) for r in store.rows("SELECT * FROM fact WHERE slot_key = ? ORDER BY id", key)]


def duplicates(store: Store, fact_id: int) -> list[Fact]:
    """Return the facts that were found to say the same as this one, oldest first."""
    rows = store.rows("SELECT * FROM fact WHERE same_as = ? ORDER BY id", fact_id)
    return [_fact(row) for row in rows]


def held_before(store: Store, fact_id: int) -> list[Fact]:
    """Return the older facts that say exactly the same and are held or about to be judged."""
    same = by_key(store, get(store, fact_id).fact_key)
    return [fact for fact in same if fact.id < fact_id and fact.state in (*HELD, "received")]


def of_batch(store: Store, batch: int) -> list[Fact]:
    """Return the facts of a batch, oldest first."""
    return [
        _fact(r) for r in store.rows("SELECT * FROM fact WHERE batch_id = ? ORDER BY id", batch)
    ]


def of_release(store: Store, number: int) -> list[Fact]:
    """Return the facts that a release holds, in its order."""
    rows = store.rows(
        "SELECT fact.* FROM release_fact JOIN fact ON fact.id = fact_id"
        " WHERE release = ? ORDER BY position",
        number,
    )
    return [_fact(row) for row in rows]


def only_in(store: Store, number: int, other: int) -> list[Fact]:
    """Return the facts that one release holds and another does not, in the first one's order."""
    rows = store.rows(
        "SELECT fact.* FROM release_fact AS mine JOIN fact ON fact.id = mine.fact_id"
        " WHERE mine.release = ? AND NOT EXISTS"
        " (SELECT 1 FROM release_fact WHERE fact_id = mine.fact_id AND release = ?)"
        " ORDER BY mine.position",
        number,
        other,
    )
    return [_fact(row) for row in rows]


def counts(store: Store) -> dict[str, int]:
    """Return how many facts are in each state that has any."""
    rows = store.rows("SELECT state, count(*) AS n FROM fact GROUP BY state ORDER BY state")
    return {row["state"]: row["n"] for row in rows}


def insert(
    store: Store,
    candidate: Candidate,
    entry_id: int | None,
    tier: str,
    asserted_at: datetime | None,
    now: datetime,
    source_id: int | None = None,
    reason: str = "",
) -> int:
    """Store a candidate as a received fact with its evidence, inside a transaction.

    ``asserted_at`` is None for one that is said at the moment in which it is received;
    ``source_id`` is the source that it was polled from, None for one brought in by hand.
    """
    known, received = keys.names(store), receive_time(store, now)
    row = {
        "subject": candidate.subject,
        "relation": candidate.relation,
        "object": candidate.object,
        "prompts": json.dumps(candidate.prompts, ensure_ascii=False),
        "held_out": json.dumps(candidate.held_out, ensure_ascii=False),
        "slot_key": known.slot_key(candidate.subject, candidate.relation),
        "fact_key": known.fact_key(candidate.subject, candidate.relation, candidate.object),
        "tier": tier,
        "extractor": candidate.extractor,
        "state": "received",
        "asserted_at": timestamp(asserted_at or received),
        "received_at": timestamp(received),
        "brought_by": source_id,
        "vouched_by": source_id,
    }
    fact_id = store.insert("fact", row)
    if entry_id is not None:
        add_evidence(store, fact_id, entry_id, candidate.quote)
    data = {"to": "received", "object": candidate.object, "entry": entry_id}
    if reason:
        data["reason"] = reason
    store.event("fact.receive", f"fact:{fact_id}", data, now)
    return fact_id


def receive_time(store: Store, now: datetime) -> datetime:
    """Return when a fact counts as received: now, but never before one that is here already.

    Else a clock that was set back would let news look older than what it replaces.
    """
    row = store.one("SELECT max(received_at) AS last FROM fact")
    if row is None or row["last"] is None:
        return now
    last = datetime.fromisoformat(row["last"])
    return now if now >= last else last + timedelta(microseconds=1)


def insert_again(store: Store, fact: Fact, now: datetime) -> int:
    """Store a fact anew as a received one with its evidence, by hand, inside a transaction."""
    same = (
        "subject, relation, object, prompts, held_out, slot_key, fact_key, tier, extractor,"
        " asserted_at"
    )
    done = store.connection.execute(
        f"INSERT INTO fact ({same}, state, received_at)"
        f" SELECT {same}, 'received', ? FROM fact WHERE id = ?",
        (timestamp(receive_time(store, now)), fact.id),
    )
    new = done.lastrowid
    assert new is not None, "a row was inserted"
    share_evidence(store, fact.id, new)
    data = {"to": "received", "object": fact.object, "again": fact.id}
    store.event("fact.receive", f"fact:{new}", data, now)
    return new


def add_evidence(store: Store, fact_id: int, entry_id: int, quote: str) -> None:
    """Link an entry to a fact that it supports; a second time changes nothing."""
    link = {"fact_id": fact_id, "entry_id": entry_id, "quote": quote}
    store.table("evidence").insert(link, ignore=True)


def share_evidence(store: Store, duplicate: int, original: int) -> None:
    """Let every entry that supports ``duplicate`` support ``original`` too."""
    store.connection.execute(
        "INSERT OR IGNORE INTO evidence (fact_id, entry_id, quote)"
        " SELECT ?, entry_id, quote FROM evidence WHERE fact_id = ?",
        (original, duplicate),
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """An entry that supports a fact, with its source."""

    quote: str
    source: str
    location: str
    tier: str
    title: str
    link: str | None
    published_at: str | None
    received_at: str
    raw: str


def evidence(store: Store, fact_id: int) -> list[Evidence]:
    """Return what supports a fact, first received first."""
    rows = store.rows(
        "SELECT quote, source.name AS source, source.location, source.tier, title, link,"
        " published_at, entry.received_at, raw FROM evidence"
        " JOIN entry ON entry.id = entry_id JOIN source ON source.id = source_id"
        " WHERE fact_id = ? ORDER BY entry.received_at, entry.id",
        fact_id,
    )
    return [Evidence(**dict(row)) for row in rows]


def was_chosen_over(store: Store, one: int, other: int) -> bool:
    """Tell whether a person approved fact ``one`` after ``other`` was approved by whomever."""
    last = [
        store.one(
            "SELECT seq, actor FROM event WHERE subject = ?"
            " AND action IN ('fact.approve', 'fact.requeue') ORDER BY seq DESC LIMIT 1",
            f"fact:{number}",
        )
        for number in (one, other)
    ]
    mine, theirs = last
    if mine is None or not mine["actor"].startswith(OPERATOR):
        return False
    return theirs is None or bool(mine["seq"] > theirs["seq"])


def slots(store: Store, last: int) -> list[tuple[str, str]]:
    """Return subject, as written, and configured relation of the facts up to ``last``."""
    rows = store.rows(
        "SELECT DISTINCT subject, relation FROM fact WHERE relation != 'asked' AND id <= ?"
        " ORDER BY subject, relation",
        last,
    )
    return [(row["subject"], row["relation"]) for row in rows]


def move(store: Store, facts: Sequence[Fact], event: str, now: datetime, reason: str = "") -> None:
    """Move facts along by the same event, inside a transaction."""
    for fact in facts:
        store.transition("fact", fact.id, event, now, reason)
