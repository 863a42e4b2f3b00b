"""The log files: the newest lines over a rotation, and a bound for one that nobody rotates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count as counting
from pathlib import Path


def whole(path: Path) -> int:
    """Return the offset behind a log's last whole line; what follows is still being written."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def tail(
    path: Path,
    count: int,
    wanted: Callable[[str], bool] = lambda line: True,
    end: int | None = None,
) -> list[str]:
    """Return the newest ``count`` lines of a log and the files that it was rotated to.

    Only lines that are ``wanted`` count; of the newest file, what lies before the offset ``end``.
    """
    found: deque[str] = deque()
    for number in counting():
        part = path if number == 0 else path.with_name(f"{path.name}.{number}")
        lacking = count - len(found)
        if lacking <= 0 or not part.exists():
            return list(found)
        every = _lines(part, end if number == 0 else None)
        lines = deque(filter(wanted, every), maxlen=lacking)
        found.extendleft(reversed(lines))
    raise AssertionError("counting never ends")


def _lines(part: Path, end: int | None) -> Iterator[str]:
    with part.open("rb") as file:
        read = 0
        for raw in file:
            read += len(raw)
            if end is not None and read > end:
                return
            yield raw.decode("utf-8", "replace").rstrip("\n")


def trim(path: Path, max_mb: float) -> None:
    """Set a log that no one rotates aside once it is over its bound; one older copy is kept."""
    if path.exists() and path.stat().st_size > max_mb * 1_000_000:
        path.replace(path.with_name(f"{path.name}.1"))
