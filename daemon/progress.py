"""How far a long piece of work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daemon.child import OnProgress

QUIET_SECONDS = 30.0  #: between two lines of the log


@contextmanager
def shown(log: Any, also: OnProgress) -> Iterator[OnProgress]:
    """Yield a function to report progress to for the block; ``also`` hears of it too."""
    if sys.stderr.isatty():
        with _bar(also) as report:
            yield report
        return
    last = [time.monotonic()]

    def say(stage: str, done: int, total: int) -> None:
        also(stage, done, total)
        if time.monotonic() - last[0] >= QUIET_SECONDS:
            last[0] = time.monotonic()
            log.info("work.progress", stage=stage, done=done, total=total)

    yield say


@contextmanager
def _bar(also: OnProgress) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def report(stage: str, done: int, total: int) -> None:
            also(stage, done, total)
            bar.update(task, description=stage, completed=done, total=max(total, 1))

        yield report
