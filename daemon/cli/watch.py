"""`wised status --watch`: the status on one live screen, or one snapshot after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from daemon import status as standing
from daemon.cli import status_view
from daemon.cli.common import now
from daemon.cli.terminal import ends_in_order
from daemon.observe.pulse import Work
from daemon.render import console, fields, say, styled
from daemon.state import State
from daemon.status import Status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

BAR_CELLS = 40
PROBLEMS_SHOWN = 5
BESIDE_FROM = 100  #: columns from which queue and gate stand beside each other


@dataclass
class Pace:
    """How fast the daemon's present step goes, from what was seen of it so far."""

    _doing: str = ""
    _start: tuple[datetime, int] | None = None

    def seconds_left(self, work: Work | None, at: datetime) -> float | None:
        """Return how long the step will take at the pace seen; None before that can be told."""
        if work is None or not work.doing:
            self._start = None
            return None
        if self._start is None or work.doing != self._doing or work.done < self._start[1]:
            self._doing, self._start = work.doing, (at, work.done)
            return None
        began, first = self._start
        passed, made = (at - began).total_seconds(), work.done - first
        if made <= 0 or passed <= 0:
            return None
        return max(0.0, (work.total - work.done) * passed / made)


def run(state: State, period_seconds: float) -> None:
    """Show the status until interrupted; a screen on a terminal, else a snapshot each period."""
    with ends_in_order():
        try:
            if sys.stdout.isatty():
                _screen(state, period_seconds)
            else:
                _snapshots(state, period_seconds)
        except KeyboardInterrupt:
            return  # the way to end it


def _look(state: State, at: datetime) -> Status:
    with state.store(read_only=True) as store:
        return standing.read(state, store, at)


def _snapshots(state: State, period_seconds: float) -> None:
    while True:
        at = now()
        seen = _look(state, at)
        fields([("at", at), *status_view.lines(seen, at)])
        say("")
        sys.stdout.flush()
        time.sleep(period_seconds)


def _screen(state: State, period_seconds: float) -> None:
    from rich.live import Live

    pace = Pace()
    with Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            at = now()
            seen = _look(state, at)
            left = pace.seconds_left(seen.word.work, at)
            live.update(drawn(seen, at, left, live.console.width), refresh=True)
            time.sleep(period_seconds)


def drawn(seen: Status, at: datetime, seconds_left: float | None, columns: int) -> RenderableType:
    """Return the screen, the most urgent first: what doesn't fit is cut off at the end.

    That is the list of sources, those that fail first; how many they are stands above.
    """
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table

    queue = Group(Rule(styled("queue"), align="left"), _queue(seen, at))
    lines = ((name, value, "") for name, value in status_view.gate_lines(seen))
    gate = Group(Rule(styled("gate"), align="left"), _pairs(lines))
    middle: RenderableType = Group(gate, queue)
    if columns >= BESIDE_FROM:
        beside = Table.grid(padding=(0, 2), expand=True)
        beside.add_column(ratio=3)
        beside.add_column(ratio=2)
        beside.add_row(queue, gate)
        middle = beside
    title = styled(f"wised at {at.isoformat(timespec='seconds')}, Ctrl-C ends", "bold")
    return Group(
        title,
        _pairs(_head(seen, at)),
        *_work(seen.word.work, at, seconds_left),
        middle,
        Rule(styled("sources"), align="left"),
        _sources(seen, at),
    )


def _head(seen: Status, at: datetime) -> Iterator[tuple[str, object, str]]:
    """Yield name, value and style of what stands on top."""
    for problem in seen.problems[:PROBLEMS_SHOWN] or ("ok",):
        yield "health", problem, "bold red" if seen.problems else "green"
    if (more := len(seen.problems) - PROBLEMS_SHOWN) > 0:
        yield "", f"and {more} more", "bold red"
    daemon = "not running" if seen.daemon is None else f"running ({seen.daemon})"
    yield "daemon", daemon, "yellow" if seen.daemon is None else ""
    yield "release", status_view.release_line(seen, at), ""
    for name, value in status_view.probation_lines(seen):
        yield name, value, ""
    for kind, reason in seen.holds.items():
        yield f"hold on {kind}", reason, "yellow"
    yield "sources", status_view.source_line(seen), ""
    yield "disk", status_view.disk_line(seen), ""


def _pairs(lines: Iterator[tuple[str, object, str]]) -> Table:
    grid = _grid()
    for name, value, style in lines:
        grid.add_row(styled(name, "dim"), styled(value, style))
    return grid


def _grid() -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _work(work: Work | None, at: datetime, seconds_left: float | None) -> Iterator[RenderableType]:
    from datetime import timedelta

    from rich.progress_bar import ProgressBar

    from daemon.render import span

    if work is None:
        return
    yield _pairs(iter([("doing", status_view.work_line(work, at), "bold")]))
    if work.total > 1:
        left = ""
        if seconds_left is not None and work.done < work.total:
            left = f"about {span(timedelta(seconds=seconds_left))} left of this step"
        bar = _grid()
        drawn = ProgressBar(total=work.total, completed=work.done, width=BAR_CELLS)
        bar.add_row(drawn, styled(left) if left else "")
        yield bar


def _queue(seen: Status, at: datetime) -> Table:
    grid = _grid()
    for state, count in seen.queue.items():
        grid.add_row(styled(state, "dim"), styled(count))
    if (waiting := status_view.waiting_line(seen, at)) is not None:
        grid.add_row(styled("oldest waiting", "dim"), styled(waiting))
    for lines in (status_view.batch_lines, status_view.dropped_lines, status_view.unread_lines):
        for name, value in lines(seen):
            grid.add_row(styled(name, "dim"), styled(value, "yellow"))
    grid.add_row(styled("dead letters", "dim"), styled(seen.dead_letters))
    return grid


def _sources(seen: Status, at: datetime) -> Table:
    """Return the sources, those that fail first."""
    from daemon.render import ago

    grid = _grid()
    failing_first = sorted(seen.sources, key=lambda one: not one.is_failing)
    for one in failing_first:
        if one.is_failing:
            trouble = f"failing, {one.failures} in a row: {one.last_error or 'no error noted'}"
            grid.add_row(styled(one.name), styled(trouble, "red"))
        else:
            calm = "ok" if one.state == "active" else one.state
            grid.add_row(styled(one.name), styled(f"{calm}, last read {ago(one.last_ok_at, at)}"))
    return grid
