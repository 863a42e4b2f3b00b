"""Which shards of a side memory are to be rewritten together: its levels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

#: fullness from which a shard is left alone, until too many of its facts are dead
FULL_ENOUGH = 0.5
LOWEST = 6  #: level; of shards below a thousandth of half full, where three make one


@dataclass(frozen=True, slots=True)
class ShardView:
    """What compaction looks at in a shard."""

    made_in: int  #: release that it was written for
    solved: int  #: facts it was solved for
    live: int  #: of those, facts that are still answered from it
    fullness: float  #: predicted when it was solved; 1 is as many facts as it can hold

    def __post_init__(self) -> None:
        """Raise ValueError for counts that cannot be."""
        if not (0 <= self.live <= self.solved and self.fullness >= 0):
            raise ValueError(f"{self.live} live of {self.solved} facts, {self.fullness} full")

    @property
    def dead_share(self) -> float:
        """Share of its facts that were superseded or retracted, 0 for a shard of none."""
        return (self.solved - self.live) / self.solved if self.solved else 0.0

    @property
    def taken(self) -> float:
        """How full its live facts make it."""
        return self.fullness * (1 - self.dead_share)


def level(shard: ShardView, most: int) -> int:
    """Return a shard's level: 0 is full enough to be left alone, each further one emptier.

    Levels are a factor of ``most`` + 1 apart in fullness, so that as many shards of one make one
    of the level above it; all that is emptier still is on the lowest.
    """
    found, least = 0, FULL_ENOUGH
    while found < LOWEST and shard.taken < least:
        found, least = found + 1, least / (most + 1)
    return found


def due(shards: Sequence[ShardView], most: int, max_dead_share: float) -> tuple[int, ...]:
    """Return the positions of the shards to be rewritten together, rising; empty: none.

    A level that holds more than ``most`` shards is rewritten, with all that is emptier; and any
    shard of whose facts more than ``max_dead_share`` are dead. So a fact is rewritten once a level
    on its way into a full shard, and again only after as many deaths as there are lives: what a
    change costs grows with the logarithm of what a shard holds, and not with what is held. Shards
    that came out of one release together are left alone until one of their facts dies: they were
    made several because one could not hold them all.
    """
    levels: dict[int, set[int]] = defaultdict(set)
    for position, shard in enumerate(shards):
        levels[level(shard, most)].add(position)
    crowded = [one for one, members in levels.items() if one > 0 and len(members) > most]
    small = {i for one in levels if crowded and one >= min(crowded) for i in levels[one]}
    if len({shards[i].made_in for i in small}) == 1 and not any(
        shards[i].dead_share for i in small
    ):
        small = set()
    dead = {i for i, shard in enumerate(shards) if shard.dead_share > max_dead_share}
    return tuple(sorted(dead | small))
