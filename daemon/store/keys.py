"""The keys of facts, and what they are made with: the names in force and the way of folding.

What is in force stands in the database, not in `config.toml`, so that all keys are comparable at
any moment, and the command line and the daemon make the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from daemon.store.database import Store
from ingest.names import Names
from ingest.text import FOLDING, digest

PAGE = 5000  #: facts read and written at once
MAX_TOLD = 100  #: slots that the audit event names

#: other names by subject, as `config.toml` has them
Subjects = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What new keys came to."""

    facts: int  #: whose keys changed
    disputed: int  #: slots for which several facts are promoted that say different things


def names(store: Store) -> Names:
    """Return the names that the keys in the store are made with."""
    return _names(_body(store) or "{}")


def record(store: Store, subjects: Subjects) -> None:
    """Put names in force inside a transaction; keys made before stay as they are."""
    row = {"only": 1, "made_with": _text(subjects)}
    store.table("keying").insert(row, pk="only", replace=True)


def in_force(store: Store, subjects: Subjects) -> bool:
    """Tell whether the keys in the store are made with these names and today's folding."""
    return _body(store) == _text(subjects)


def renew(store: Store, subjects: Subjects, now: datetime) -> Rekeyed | None:
    """Make all keys anew in one transaction; None when they are made with these names already."""
    if in_force(store, subjects):
        return None
    with store.write():
        return renew_within(store, subjects, now)


def renew_within(store: Store, subjects: Subjects, now: datetime) -> Rekeyed | None:
    """Do as `renew` inside a transaction.

    No fact's state changes: what now fills one slot is told in an event, and for a person.
    """
    if in_force(store, subjects):
        return None
    before = _body(store)
    record(store, subjects)
    moved = _move(store, Names(subjects))
    found = disputed(store)
    data = {"facts": moved, "disputed": [list(ids) for ids in found[:MAX_TOLD]]}
    data |= {"made_with": digest(_text(subjects)), "before": before and digest(before)}
    store.event("fact.rekey", "keying", data, now)
    return Rekeyed(moved, len(found))


def were_renewed(store: Store) -> bool:
    """Tell whether keys were ever made anew by other names, so that slots may have become one."""
    sql = "SELECT 1 FROM event WHERE subject = 'keying' AND action = 'fact.rekey' LIMIT 1"
    return store.one(sql) is not None


def disputed(store: Store) -> list[tuple[int, ...]]:
    """Return, for each slot with promoted facts of different keys, their ids, oldest first."""
    rows = store.rows(
        "SELECT group_concat(id) AS ids FROM fact INDEXED BY fact_promoted"
        " WHERE state = 'promoted' AND slot_key IN"
        " (SELECT slot_key FROM fact INDEXED BY fact_promoted WHERE state = 'promoted'"
        "  GROUP BY slot_key HAVING count(*) > 1)"
        " GROUP BY slot_key HAVING min(fact_key) != max(fact_key) ORDER BY min(id)"
    )
    return [tuple(sorted(int(part) for part in row["ids"].split(","))) for row in rows]


def _body(store: Store) -> str | None:
    row = store.one("SELECT made_with FROM keying")
    return None if row is None else str(row["made_with"])


def _text(subjects: Subjects) -> str:
    body = {"folding": FOLDING, "subjects": {name: list(subjects[name]) for name in subjects}}
    return json.dumps(body, sort_keys=True, ensure_ascii=False)


@lru_cache(maxsize=8)
def _names(body: str) -> Names:
    return Names(json.loads(body).get("subjects"))


def _move(store: Store, known: Names) -> int:
    """Give every fact its keys by these names; return how many had others."""
    slot_key = lru_cache(maxsize=PAGE)(known.slot_key)  # subjects come again and again
    moved = last = 0
    while page := store.rows(
        "SELECT id, subject, relation, object, slot_key, fact_key FROM fact"
        " WHERE id > ? ORDER BY id LIMIT ?",
        last,
        PAGE,
    ):
        last = page[-1]["id"]
        changed = [
            (slot, fact, row["id"])
            for row in page
            if (
                slot := slot_key(row["subject"], row["relation"]),
                fact := known.fact_key(row["subject"], row["relation"], row["object"]),
            )
            != (row["slot_key"], row["fact_key"])
        ]
        store.connection.executemany(
            "UPDATE fact SET slot_key = ?, fact_key = ? WHERE id = ?", changed
        )
        moved += len(changed)
    return moved
