"""Embeddings as stored: one a fact, found again by the text that was embedded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from daemon.store.database import Store
from ingest.text import digest

PAGE = 4096  #: rows read at once; 6 MB of the default model's
#: states of facts that no new fact is held against: not looked at yet, said before by another, or
#: dropped: a flood is not to be embedded, and what comes back does so as a new fact
NOT_COMPARED = ("received", "duplicate", "dropped")


@dataclass(frozen=True, slots=True)
class Vector:
    """What a fact's text was embedded to."""

    fact_id: int
    text_key: str | None  #: None: of a fact from before texts had keys
    data: bytes  #: float32, little-endian, of length 1


def text_key(model: str, text: str) -> str:
    """Return the sha256 hex that names an embedding: no two texts or models share one."""
    return digest([model, text])


def of_texts(store: Store, keys: Iterable[str]) -> dict[str, bytes]:
    """Return the vectors of those texts that were embedded before, by key."""
    rows = store.rows(
        "SELECT text_key, vector FROM embedding WHERE text_key IN (SELECT value FROM json_each(?))",
        json.dumps(sorted(set(keys))),
    )
    return {row["text_key"]: row["vector"] for row in rows}


def of_facts(store: Store, model: str, ids: Sequence[int]) -> dict[int, bytes]:
    """Return the vectors of those facts that have one by ``model``."""
    rows = store.rows(
        "SELECT fact_id, vector FROM embedding"
        " WHERE fact_id IN (SELECT value FROM json_each(?)) AND model = ?",
        json.dumps(list(ids)),
        model,
    )
    return {row["fact_id"]: row["vector"] for row in rows}


def save(store: Store, model: str, vectors: Iterable[Vector]) -> None:
    """Store vectors in one transaction; those of another model give way."""
    with store.write():
        store.connection.executemany(
            "INSERT OR REPLACE INTO embedding (fact_id, model, vector, text_key)"
            " VALUES (?, ?, ?, ?)",
            [(v.fact_id, model, v.data, v.text_key) for v in vectors],
        )


def missing(store: Store, model: str, first: int, last: int) -> list[int]:
    """Return the compared facts with ids from first to last that have no vector by ``model``."""
    rows = store.rows(
        "SELECT id FROM fact WHERE id BETWEEN ? AND ?"
        " AND state NOT IN (SELECT value FROM json_each(?)) AND NOT EXISTS"
        " (SELECT 1 FROM embedding WHERE fact_id = fact.id AND model = ?) ORDER BY id",
        first,
        last,
        json.dumps(NOT_COMPARED),
        model,
    )
    return [row["id"] for row in rows]


def compared(store: Store, model: str, first: int, last: int) -> Iterator[list[Vector]]:
    """Yield the vectors of the compared facts with ids from first to last, a page at a time."""
    while True:
        rows = store.rows(
            "SELECT fact_id, text_key, vector FROM embedding JOIN fact ON fact.id = fact_id"
            " WHERE fact_id BETWEEN ? AND ? AND model = ?"
            " AND state NOT IN (SELECT value FROM json_each(?)) ORDER BY fact_id LIMIT ?",
            first,
            last,
            model,
            json.dumps(NOT_COMPARED),
            PAGE,
        )
        if not rows:
            return
        yield [Vector(*row) for row in rows]
        first = rows[-1]["fact_id"] + 1
