"""Facts found in an entry go into the store; the entry's source decides how far they are dated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from daemon import flapping
from daemon.store import Store, facts
from ingest import Candidate


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as far as its facts need it."""

    id: int
    key: str
    source_id: int
    tier: str
    published: datetime | None
    received: datetime  #: as its facts count it, see `facts.receive_time`


def keep(store: Store, entry: Stored, found: Iterable[Candidate], now: datetime) -> list[int]:
    """Store an entry's facts with their evidence, inside a transaction; return their numbers."""
    # A source's own date orders facts only where the operator trusts the source.
    dated = entry.published if entry.tier == "trusted" else None
    doubt = flapping.reason(store, entry.source_id, entry.key, now)
    kept = []
    for candidate in found:
        asserted = dated or entry.received
        number = facts.insert(
            store, candidate, entry.id, entry.tier, asserted, now, entry.source_id
        )
        # One that is held is no news, however often its entry changes: triage sees to it.
        if doubt and not facts.held_before(store, number):
            store.transition("fact", number, "quarantine", now, doubt)
        kept.append(number)
    return kept
