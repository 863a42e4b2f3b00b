"""The log files: the newest lines over a rotation, and a bound for one that nobody rotates."""

from __future__ import annotations

from collections import deque
from itertools import count as counting
from pathlib import Path


def tail(path: Path, count: int) -> list[str]:
    """Return the newest ``count`` lines of a log and the files that it was rotated to."""
    found: deque[str] = deque()
    for number in counting():
        part = path if number == 0 else path.with_name(f"{path.name}.{number}")
        wanted = count - len(found)
        if wanted <= 0 or not part.exists():
            return list(found)
        with part.open(encoding="utf-8", errors="replace", newline="\n") as file:
            lines = deque((line.rstrip("\n") for line in file), maxlen=wanted)
        found.extendleft(reversed(lines))
    raise AssertionError("counting never ends")


def trim(path: Path, max_mb: float) -> None:
    """Set a log that no one rotates aside once it is over its bound; one older copy is kept."""
    if path.exists() and path.stat().st_size > max_mb * 1_000_000:
        path.replace(path.with_name(f"{path.name}.1"))
