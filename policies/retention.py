"""Which releases may be deleted from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: in use, in reserve, or on the way: deleting these would lose something
_NEEDED = frozenset({"promoted", "previous", "building", "candidate", "verified"})


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """What retention looks at in a release."""

    number: int  #: 0 is the bare model
    state: str
    pinned: bool = False


def prunable(releases: Sequence[ReleaseView], keep: int) -> list[int]:
    """Return the numbers of the releases that may go, the oldest first.

    The `keep` newest stay, and so do release 0, the promoted, the previous, the pinned and the
    unfinished ones. Raises ValueError for a negative `keep`.
    """
    if keep < 0:
        raise ValueError("keep is 0 or more")
    newest = sorted((one.number for one in releases if one.number), reverse=True)[:keep]
    return sorted(
        one.number
        for one in releases
        if one.number and one.number not in newest and one.state not in _NEEDED and not one.pinned
    )
