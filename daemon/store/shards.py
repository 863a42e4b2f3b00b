"""Which shard of a release holds each fact, and how full the shards are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.store.database import Store

if TYPE_CHECKING:
    from daemon.messages import ShardMade
    from policies.compaction import ShardView


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a release as stored."""

    position: int
    made_in: int  #: release that it was written for
    solved: int  #: facts it was solved for
    fullness: float  #: predicted then; 1 is full
    live: int  #: of its facts, those that still answer

    @property
    def dead(self) -> int:
        """How many of its facts were superseded or retracted."""
        return self.solved - self.live

    @property
    def view(self) -> ShardView:
        """What compaction looks at."""
        from policies.compaction import ShardView  # status need not import the rules

        return ShardView(self.made_in, self.solved, self.live, self.fullness)


def of_release(store: Store, number: int) -> list[Shard]:
    """Return the shards of a release in its order; none are known of the paper's method."""
    rows = store.rows(
        "SELECT shard.position, made_in, solved, fullness, count(fact.id) AS live FROM shard"
        " LEFT JOIN release_fact ON release_fact.release = shard.release"
        " AND release_fact.shard = shard.position"
        " LEFT JOIN fact ON fact.id = release_fact.fact_id AND fact.state = 'promoted'"
        " WHERE shard.release = ? GROUP BY shard.position ORDER BY shard.position",
        number,
    )
    return [Shard(**dict(row)) for row in rows]


def views(store: Store, number: int) -> list[ShardView]:
    """Return what compaction looks at in the shards of a release that answers now."""
    return [shard.view for shard in of_release(store, number)]


def of_facts(store: Store, number: int) -> dict[int, int]:
    """Return the position of each fact's shard in a release."""
    rows = store.rows(
        "SELECT fact_id, shard FROM release_fact WHERE release = ? AND shard IS NOT NULL", number
    )
    return {row["fact_id"]: row["shard"] for row in rows}


def record(store: Store, number: int, parent: int | None, made: Sequence[ShardMade]) -> None:
    """Store the shards of a release inside a transaction; those inherited stay what they were."""
    before = {shard.position: shard for shard in of_release(store, parent)} if parent else {}
    for position, shard in enumerate(made):
        origin = None if shard.inherited is None else before.get(shard.inherited)
        row = {
            "release": number,
            "position": position,
            "made_in": origin.made_in if origin else number,
            "solved": shard.solved,
            "fullness": (origin.fullness if origin else shard.fullness) or 0.0,
        }
        store.table("shard").insert(row)
