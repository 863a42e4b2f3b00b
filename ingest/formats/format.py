"""What a format of correction logs is. Contains no format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: one decoded JSON object of a log, or what `Extractor.from_row` takes
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Join:
    """How rows of a format refer to other rows of the same log."""

    #: what others call the row (``trace 7f2a``); None for a row that is not there for others
    name: Callable[[Row], str | None]
    #: what the row calls the one that it needs; None when it has all it needs
    wanted: Callable[[Row], str | None]
    lends: tuple[str, ...]  #: the keys that a row takes from the one it refers to


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write corrections down, a JSON object each."""

    name: str  #: as ``--format`` takes it
    title: str  #: whose format it is
    keys: str  #: the keys that tell its rows apart, as messages and the documentation show them
    #: tells by its keys alone whether a row is of this format
    fits: Callable[[Row], bool]
    #: returns the row as `Extractor.from_row` takes it, with ``ts`` where it has a date of its
    #: own; keys it has no use for say nothing. Raises RowError
    read: Callable[[Row], Row]
    join: Join | None = None  #: None where each row stands for itself


def has(*keys: str) -> Callable[[Row], bool]:
    """Return the test whether a row has all of the keys."""
    return lambda row: all(key in row for key in keys)
