"""How many facts may wait undecided, and whose are dropped when there are more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from policies.trust import Tier


class Quota(StrEnum):
    """What may be exceeded, by the name of its key in the configuration."""

    ALL = "max_undecided_facts"
    SOURCE = "max_undecided_facts_per_source"
    DAY = "max_new_facts_per_source_per_day"


@dataclass(frozen=True, slots=True)
class Quotas:
    """At most so many facts."""

    undecided: int  #: that nobody has decided on, over all sources
    undecided_per_source: int
    new_per_source_per_day: int  #: that one source may bring in 24 hours

    def __post_init__(self) -> None:
        """Raise ValueError for a quota that lets nothing in."""
        if min(self.undecided, self.undecided_per_source, self.new_per_source_per_day) < 1:
            raise ValueError("a quota is at least 1")

    def of(self, quota: Quota) -> int:
        """Return one of them by its name."""
        by_name = {
            Quota.ALL: self.undecided,
            Quota.SOURCE: self.undecided_per_source,
            Quota.DAY: self.new_per_source_per_day,
        }
        return by_name[quota]


@dataclass(frozen=True, slots=True)
class Queue:
    """The undecided facts that count against one source."""

    source: int
    tier: Tier
    undecided: int


@dataclass(frozen=True, slots=True)
class Drop:
    """So many of a source's undecided facts are dropped, the oldest ones."""

    source: int
    facts: int
    quota: Quota


def over_day(brought: int, new: int, quotas: Quotas) -> int:
    """Return how many of the ``new`` facts of a poll are too many for their source's day.

    ``brought`` is what the source brought in the last 24 hours without them.
    """
    return min(new, max(0, brought + new - quotas.new_per_source_per_day))


def room(brought: int, untriaged: int, quotas: Quotas, per_poll: int) -> tuple[int, Quota | None]:
    """Return how many rows of a log may be read now, and the quota that leaves none, if one does.

    A log keeps what is not read, so nothing needs to be dropped because it comes too fast:
    ``untriaged`` of its facts are still to be looked at, and triage gets to them.
    """
    day = max(0, quotas.new_per_source_per_day - brought)
    return min(day, max(0, per_poll - untriaged)), None if day else Quota.DAY


def drops(queues: Iterable[Queue], quotas: Quotas) -> tuple[Drop, ...]:
    """Return how many undecided facts each source loses, by source and quota.

    First each source is held to its own quota. If all together are still too many, the least
    trusted tier loses first; and of its sources those with the most, down to a common level, so
    that a source that floods does not push out what others of its tier said.
    """
    held = sorted(queues, key=lambda one: one.source)
    own = {one.source: max(0, one.undecided - quotas.undecided_per_source) for one in held}
    found = [Drop(source, facts, Quota.SOURCE) for source, facts in own.items() if facts]
    left = {one.source: one.undecided - own[one.source] for one in held}
    excess = max(0, sum(left.values()) - quotas.undecided)
    for tier in sorted(Tier, key=lambda tier: tier.rank):
        of_tier = {one.source: left[one.source] for one in held if one.tier is tier}
        cut = min(excess, sum(of_tier.values()))
        excess -= cut
        found += [Drop(s, facts, Quota.ALL) for s, facts in _levelled(of_tier, cut).items()]
    return tuple(found)


def _levelled(sizes: Mapping[int, int], cut: int) -> dict[int, int]:
    """Return how much to take from each so that ``cut`` goes in all and the largest are levelled.

    What can't be shared out evenly is taken from the sources added last.
    """
    level = _level(sorted(sizes.values(), reverse=True), cut)
    taken = {source: size - level for source, size in sizes.items() if size > level}
    spare = sum(taken.values()) - cut
    for source in sorted(taken)[:spare]:
        taken[source] -= 1
    return {source: facts for source, facts in taken.items() if facts}


def _level(falling: Sequence[int], cut: int) -> int:
    """Return the highest level above which at least ``cut`` lies."""
    # NOTE: above a level lies what the k largest have above it, for the k that has the most.
    sums = enumerate(accumulate(falling), 1)
    return max(((above - cut) // count for count, above in sums), default=0)
