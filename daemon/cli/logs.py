"""`wised logs`: what the daemon wrote, for a person to read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli.common import Json, moment, place
from daemon.errors import UsageError
from daemon.render import note, print_json, say

LOG_FILE = "wised.jsonl"
LEVELS = ("debug", "info", "warning", "error", "critical")
LOOK_SECONDS = 0.5  #: how often a followed log is looked at
MAX_LINE_BYTES = 1 << 20  #: of a followed line without an end; then it is shown as it is


class Level(StrEnum):
    """How grave a line is at least."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines to show."""

    level: str | None  #: and graver; None: all, those without a level too
    since: datetime | None

    def has(self, line: str) -> bool:
        """Tell whether a line is to be shown; one that is no JSON only if all are."""
        if self.level is None and self.since is None:
            return True
        found = _parsed(line)
        if found is None:
            return False
        if self.level is not None and _grade(found) < LEVELS.index(self.level):
            return False
        return self.since is None or _is_from(found, self.since)


def _grade(found: dict[str, Any]) -> int:
    level = found.get("level")
    return LEVELS.index(level) if level in LEVELS else -1


def _is_from(found: dict[str, Any], since: datetime) -> bool:
    try:
        at = datetime.fromisoformat(found["at"])
        return at.tzinfo is not None and at >= since
    except (KeyError, TypeError, ValueError):
        return False


def logs(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Lines to show.")] = 20,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with lines as they are written.")
    ] = False,
    level: Annotated[
        Level | None, typer.Option("--level", help="Only lines as grave, and graver ones.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="2026-01-31, or 2 h, 7 d ago.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the newest lines of the daemon's log.

    Example: wised logs -n 50 --level warning
    """
    if follow and as_json:
        raise UsageError("a log that is followed is no one document", hint="leave --json out")
    from daemon import log_files

    path = place(context).logs / LOG_FILE
    wanted = Wanted(level and level.value, None if since is None else moment(since))
    end = log_files.whole(path)
    lines = log_files.tail(path, count, wanted.has, end)
    if as_json:
        print_json({"lines": [_parsed(line) or {"text": line} for line in lines]})
        return
    for line in lines:
        say(_readable(line))
    if not lines and not follow:
        note(f"{path}: nothing is logged" + (" yet" if not path.exists() else " that fits"))
    if follow:
        for line in _appended(path, end):
            if wanted.has(line):
                say(_readable(line))
                sys.stdout.flush()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rstrip("\n")


def _appended(path: Path, end: int) -> Iterator[str]:
    """Yield lines as they are written behind ``end``, through rotations, for ever."""
    inode = _inode(path)
    while True:
        now = _inode(path)
        if now != inode or (now is not None and path.stat().st_size < end):
            inode, end = now, 0  # another file has taken its place, or it was emptied
        if now is not None:
            with path.open("rb") as file:
                file.seek(end)
                while (raw := file.readline(MAX_LINE_BYTES)) and (
                    raw.endswith(b"\n") or len(raw) == MAX_LINE_BYTES
                ):
                    end += len(raw)
                    yield _text(raw)
        time.sleep(LOOK_SECONDS)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _readable(line: str) -> str:
    """Return a log line for a person; one that is no JSON as it is."""
    from daemon.log_chain import readable

    found = _parsed(line)
    return line if found is None else readable(found)


def register(parent: typer.Typer) -> None:
    """Add the command to the top level."""
    parent.command()(logs)
