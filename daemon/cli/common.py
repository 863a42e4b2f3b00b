"""What all commands share: options, ids, the state folder, rehearsed changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.errors import UsageError
from daemon.render import fields, note, print_json, say

if TYPE_CHECKING:
    from daemon.cli.rehearsal import Change
    from daemon.state import State
    from daemon.store import Store

STATE_VARIABLE = "WISED_STATE"
MAX_REASON_CHARS = 500
MAX_SHOWN = 1_000_000  #: that a list can be asked for
_UNIT_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one thing that a command was to change."""

    subject: str  #: ``fact 12``, ``source world``
    result: str  #: its new state, or ``already_<state>`` when there was nothing to do


def now() -> datetime:
    """Return the wall clock, read once a command."""
    return datetime.now(UTC)


def place(context: typer.Context) -> State:
    """Return the state folder of this call; raises NotFound when there is none."""
    from daemon.state import State

    state = State(context.obj)
    state.check()
    return state


@contextmanager
def reading(context: typer.Context) -> Iterator[Store]:
    """Open the store read-only for the block."""
    with place(context).store(read_only=True) as store:
        yield store


def number(text: str, letter: str) -> int:
    """Return the number of an id such as ``12`` or ``f12``; raises UsageError."""
    # NOTE: \d would let digits of other scripts in; int() reads those, the database's users don't.
    match = re.fullmatch(rf"{letter}?([0-9]{{1,18}})", text)
    if match is None:
        raise UsageError(f"{text!r} is no id", hint=f"write 12 or {letter}12")
    return int(match[1])


def moment(text: str) -> datetime:
    """Return the time that ``2026-01-31``, a time in RFC 3339 or ``7 d`` (ago) names, in UTC.

    Raises UsageError.
    """
    match = re.fullmatch(r"([0-9]{1,6}) ?(s|min|m|h|d)", text.strip())
    try:
        if match:
            return now() - timedelta(seconds=int(match[1]) * _UNIT_SECONDS[match[2]])
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no time", hint="write 2026-01-31, 2026-01-31T12:00Z, 90 min, 7 d"
        ) from error


def reason_or(text: str, default: str) -> str:
    """Return a reason fit to store: one line, not endless; raises UsageError."""
    if len(text) > MAX_REASON_CHARS:
        raise UsageError(f"the reason has {len(text)} characters, over {MAX_REASON_CHARS}")
    return " ".join(text.split()) or default


def show_changes(
    results: Sequence[Result], changes: Sequence[Change], *, dry_run: bool, as_json: bool
) -> None:
    """Tell what was changed, or would be."""
    if as_json:
        done = [{"subject": r.subject, "result": r.result} for r in results]
        moved = [change.as_json() for change in changes]
        print_json({"dry_run": dry_run, "results": done, "changes": moved})
        return
    fields((r.subject, r.result) for r in results)
    for change in changes:
        say(f"  {change}")
    if dry_run:
        note("Nothing was changed (--dry-run).")
