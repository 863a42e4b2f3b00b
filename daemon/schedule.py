"""When a source is polled next, and what a feed is asked. Pure: no store, no clock, no chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

SHORTEST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=24)
#: a feed is asked for its whole document so often, whatever its validators promise
FULL_EVERY = timedelta(hours=24)
#: polls in a row that must be redirected to one URL before it is proposed
PROPOSE_AFTER = 3
#: from so many doublings on the longest backoff has long been reached
_MAX_DOUBLINGS = 12


@dataclass(frozen=True, slots=True)
class Move:
    """Where a feed says that it has moved for good."""

    url: str = field(repr=False)  #: may hold credentials
    polls: int  #: answered in a row that said so

    @property
    def is_proposed(self) -> bool:
        """Tell whether the operator should hear of it."""
        return self.polls >= PROPOSE_AFTER


def after_success(interval: timedelta, more: bool, retry_after: float | None) -> timedelta:
    """Return how long to wait after a good poll: none when there is more to read at once."""
    if more:
        return timedelta(0)
    return max(interval, timedelta(seconds=retry_after or 0))


def after_failure(
    interval: timedelta, failures: int, retry_after: float | None, chance: float
) -> timedelta:
    """Return how long to wait when a poll failed after `failures` others in a row.

    A random part, `chance` in [0, 1], of the interval doubled for each of them, so that sources
    that failed together don't come back together; at least what the server asked for.
    """
    longest: timedelta = min(LONGEST_BACKOFF, interval * 2.0 ** min(failures, _MAX_DOUBLINGS))
    asked = timedelta(seconds=retry_after or 0)
    return max(SHORTEST_BACKOFF, longest * chance, asked)


def is_full_due(last_full_at: datetime | None, now: datetime) -> bool:
    """Tell whether a feed is to be asked without conditions.

    A server that wrongly answers 304 hides new entries for a day and no longer.
    """
    return last_full_at is None or not timedelta(0) <= now - last_full_at < FULL_EVERY


def move(url: str | None, polls: int) -> Move | None:
    """Return a stored move, if there is one."""
    return Move(url, polls) if url else None


def next_move(before: Move | None, seen: str | None) -> Move | None:
    """Return what is known of a feed's move after a poll that was redirected to `seen`, or not."""
    if seen is None:
        return None
    return Move(seen, before.polls + 1 if before is not None and before.url == seen else 1)
