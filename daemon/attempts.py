"""The tries of a batch: counted before each, waited for after, the batch taken apart by the third.

An attempt counts from its first moment, so one that takes the daemon down counts too. A failure is
a *death* when the facts may be why. A batch with ``max_attempts`` deaths is split in halves, which
are batches of their own; one fact alone with as many is failed. All of it stands in the tables.

While a batch waits its facts are approved: they can be superseded or rejected as any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from daemon.faults import fault
from daemon.store import Store, facts, timestamp
from daemon.store.facts import IN_CYCLE, Fact
from policies.retry import wait_after

if TYPE_CHECKING:
    from daemon.config import Config

INTERRUPTED = "the daemon ended while it was built"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that will be tried again."""

    batch: int
    facts: int
    attempts: int  #: so far
    next_attempt_at: datetime
    error: str  #: of the last attempt; of a half, that of the whole


def begin(store: Store, now: datetime) -> int:
    """Record a new batch and its first attempt, inside a transaction; return its number."""
    row = {"state": "building", "created_at": timestamp(now), "attempts": 1, "deaths": 1}
    return store.insert("batch", row)


def begin_again(store: Store, batch: int) -> None:
    """Record another attempt at a batch, inside a transaction."""
    store.connection.execute(
        "UPDATE batch SET state = 'building', attempts = attempts + 1, deaths = deaths + 1,"
        " next_attempt_at = NULL WHERE id = ?",
        (batch,),
    )


def take_back(store: Store, batch: int, error: str, now: datetime) -> None:
    """Undo an attempt that the daemon itself broke off, inside a transaction."""
    _wait(store, batch, error, now, "attempts = attempts - 1, deaths = deaths - 1")


def failed(
    store: Store,
    config: Config,
    batch: int,
    error: str,
    now: datetime,
    *,
    is_death: bool,
    is_alone: bool,
    chance: float,
) -> datetime | None:
    """Record that an attempt failed, inside a transaction; return when the next one is due.

    None: it was the last, for a fact that was alone in it. ``chance``, from 0 to 1, shortens the
    wait.
    """
    row = store.one("SELECT * FROM batch WHERE id = ?", batch)
    assert row is not None, "the batch was begun"
    deaths = row["deaths"] - (not is_death)
    spent = is_death and deaths >= config.daemon.max_attempts
    due: datetime | None = None
    if not spent:
        due = now + wait_after(row["attempts"], _first_wait(config), chance)
    elif not is_alone:
        due = now  # to be split
    if due is None:
        close(store, batch, error)
    else:
        _wait(store, batch, error, due, "" if is_death else "deaths = deaths - 1")
    _event(store, row, deaths, error, due, now)
    return due


def close(store: Store, batch: int | None, error: str) -> None:
    """Record that a batch is over without a release, inside a transaction."""
    store.connection.execute(
        "UPDATE batch SET state = 'failed', error = ?, next_attempt_at = NULL WHERE id = ?",
        (error, batch),
    )


def note_interrupted(store: Store, config: Config, now: datetime) -> list[str]:
    """Let batches wait that the daemon's last end broke off; return what was done.

    They are due at once; from ``max_attempts`` deaths on one is put off like any failure, for
    what takes the daemon down each time must not keep everything else from being built.
    """
    done = []
    with store.write():
        for row in _building(store):
            is_alone = sum(f.state in IN_CYCLE for f in facts.of_batch(store, row["id"])) <= 1
            often = is_alone and row["deaths"] >= config.daemon.max_attempts
            wait = wait_after(row["attempts"], _first_wait(config), 0) if often else timedelta(0)
            _wait(store, row["id"], INTERRUPTED, now + wait)
            _event(store, row, row["deaths"], INTERRUPTED, now + wait, now)
            done.append(f"batch {row['id']}: attempt {row['attempts']} was interrupted")
    fault("start.noted")
    return done


def put_off(store: Store, config: Config, error: str, now: datetime) -> None:
    """Let a batch wait that the daemon could not go on with, for no fault of its facts."""
    with store.write():
        for row in _building(store):
            due = now + wait_after(row["attempts"], _first_wait(config), 0)
            _wait(store, row["id"], error, due, "deaths = deaths - 1")
            _event(store, row, row["deaths"] - 1, error, due, now)


def next_due(store: Store, config: Config, now: datetime) -> tuple[int, list[Fact]] | None:
    """Return the batch to try again now and its facts, inside a transaction; None: none is due.

    One that died too often is split first. One whose facts have all gone other ways is closed.
    """
    while True:
        row = store.one(
            "SELECT * FROM batch WHERE next_attempt_at <= ? ORDER BY next_attempt_at, id LIMIT 1",
            timestamp(now),
        )
        if row is None:
            return None
        found = _approved(store, row["id"])
        if not found:
            close(store, row["id"], "none of its facts is left")
        elif len(found) > 1 and row["deaths"] >= config.daemon.max_attempts:
            _split(store, row["id"], found, row["error"], now)
        else:
            return row["id"], found


def is_waiting(store: Store) -> set[int]:
    """Return the batches that wait for another attempt."""
    rows = store.rows("SELECT id FROM batch WHERE next_attempt_at IS NOT NULL")
    return {row["id"] for row in rows}


def waiting(store: Store) -> list[Waiting]:
    """Return the batches that wait for another attempt, the next one first."""
    rows = store.rows(
        "SELECT batch.*, count(fact.id) AS facts FROM batch"
        " JOIN fact ON batch_id = batch.id AND fact.state = 'approved'"
        " WHERE next_attempt_at IS NOT NULL GROUP BY batch.id ORDER BY next_attempt_at, batch.id"
    )
    return [
        Waiting(
            r["id"],
            r["facts"],
            r["attempts"],
            datetime.fromisoformat(r["next_attempt_at"]),
            r["error"] or "",
        )
        for r in rows
    ]


def _first_wait(config: Config) -> timedelta:
    return timedelta(minutes=config.daemon.retry_minutes)


def _building(store: Store) -> list[sqlite3.Row]:
    return store.rows("SELECT * FROM batch WHERE state = 'building' ORDER BY id")


def _event(
    store: Store,
    row: sqlite3.Row,
    deaths: int,
    error: str,
    due: datetime | None,
    now: datetime,
) -> None:
    data = {"attempt": row["attempts"], "deaths": deaths, "error": error}
    data["next_attempt_at"] = None if due is None else timestamp(due)
    store.event("batch.fail", f"batch:{row['id']}", data, now)


def _wait(store: Store, batch: int, error: str, until: datetime, also: str = "") -> None:
    changes = ", ".join(filter(None, ("state = 'failed', error = ?, next_attempt_at = ?", also)))
    store.connection.execute(
        f"UPDATE batch SET {changes} WHERE id = ?", (error, timestamp(until), batch)
    )


def _approved(store: Store, batch: int) -> list[Fact]:
    return [fact for fact in facts.of_batch(store, batch) if fact.state == "approved"]


def _split(store: Store, batch: int, found: Sequence[Fact], error: str, now: datetime) -> None:
    """Make two batches of one, both due now; the older facts are tried first."""
    close(store, batch, error)
    middle = (len(found) + 1) // 2
    into = []
    for half in (found[:middle], found[middle:]):
        row = {"state": "failed", "created_at": timestamp(now), "split_from": batch}
        row |= {"error": error, "next_attempt_at": timestamp(now)}
        number = store.insert("batch", row)
        store.connection.executemany(
            "UPDATE fact SET batch_id = ?, rev = rev + 1 WHERE id = ?",
            [(number, fact.id) for fact in half],
        )
        into.append({"batch": number, "facts": [fact.id for fact in half]})
    store.event("batch.split", f"batch:{batch}", {"into": into, "error": error}, now)
