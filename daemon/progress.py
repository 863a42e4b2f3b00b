"""How far a long piece of work is: a bar on a terminal, a line now and then elsewhere.

What the daemon is at also lies in a small file of the state folder, for `wised status --watch` in
another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daemon.child import OnProgress

QUIET_SECONDS = 30.0  #: between two lines of the log
WRITE_SECONDS = 0.5  #: between two versions of the file
MAX_FILE_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Work:
    """What the daemon is doing now."""

    stage: str  #: ``edit``
    since: datetime  #: when that began
    doing: str = ""  #: the worker's own word for its step; empty before its first
    done: int = 0  #: of that step
    total: int = 0


@contextmanager
def shown(log: Any, file: Path) -> Iterator[OnProgress]:
    """Yield a function to report progress to for the block; ``file`` has the latest meanwhile."""
    with _written(file) as write, _told(log) as tell:

        def report(stage: str, done: int, total: int) -> None:
            write(stage, done, total)
            tell(stage, done, total)

        yield report


def read(file: Path) -> Work | None:
    """Return what a running daemon wrote there; None when there is nothing that makes sense."""
    try:
        with file.open("rb") as stream:
            found = json.loads(stream.read(MAX_FILE_BYTES))
        return Work(
            str(found["stage"]),
            datetime.fromisoformat(found["since"]).astimezone(UTC),
            str(found["doing"]),
            int(found["done"]),
            int(found["total"]),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


@contextmanager
def _written(file: Path) -> Iterator[OnProgress]:
    """Yield a function that writes progress to ``file``, which goes at the end of the block."""
    since = datetime.now(UTC).isoformat()
    before: list[tuple[str, float]] = [("", -WRITE_SECONDS)]

    def write(doing: str, done: int, total: int) -> None:
        last, at = before[0]
        if doing == last and time.monotonic() - at < WRITE_SECONDS:
            return
        before[0] = doing, time.monotonic()
        body = {"stage": "edit", "since": since, "doing": doing, "done": done, "total": total}
        fresh = file.with_name(f".{file.name}.new")
        # A full disk must not end the work that is reported on.
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(body), "utf-8")
            os.replace(fresh, file)

    try:
        write("", 0, 0)
        yield write
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


@contextmanager
def _told(log: Any) -> Iterator[OnProgress]:
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
        return
    last = [time.monotonic()]

    def say(stage: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] >= QUIET_SECONDS:
            last[0] = time.monotonic()
            log.info("work.progress", stage=stage, done=done, total=total)

    yield say


@contextmanager
def _bar() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=max(total, 1))

        yield report
