"""Figures that the audit log doesn't have: heartbeats, and how polls ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from daemon.store.database import Store, timestamp


@dataclass(frozen=True, slots=True)
class PollTally:
    """How often polls of a source ended in one way."""

    source: str
    state: str  #: of the source
    code: str  #: of the error; empty for polls that went well
    polls: int
    bytes: int  #: of feeds' bodies


def count_poll(store: Store, source_id: int, code: str, received_bytes: int = 0) -> None:
    """Count one poll, inside the transaction that stores what it brought."""
    store.connection.execute(
        "INSERT INTO poll_tally (source_id, code, polls, bytes) VALUES (?, ?, 1, ?)"
        " ON CONFLICT DO UPDATE SET polls = polls + 1, bytes = bytes + excluded.bytes",
        (source_id, code, received_bytes),
    )


def polls(store: Store) -> list[PollTally]:
    """Return how polls ended, of removed sources too."""
    rows = store.rows(
        "SELECT name AS source, state, code, polls, bytes FROM poll_tally"
        " JOIN source ON source.id = source_id ORDER BY name, code"
    )
    return [PollTally(**dict(row)) for row in rows]


def beat(store: Store, beats: Mapping[str, datetime]) -> None:
    """Store when parts of the daemon last moved; raises what a store that can't write raises."""
    with store.write():
        store.connection.executemany(
            "INSERT INTO heartbeat (part, at) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET at = excluded.at",
            [(part, timestamp(at)) for part, at in beats.items()],
        )


def beats(store: Store) -> dict[str, datetime]:
    """Return when each part of the daemon last moved, as far as it was stored."""
    rows = store.rows("SELECT part, at FROM heartbeat ORDER BY part")
    return {row["part"]: datetime.fromisoformat(row["at"]) for row in rows}
