"""`wised review`: one waiting fact after the other, and a key for each decision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.common import DryRun, Reason, Result, now, place, reason_or, show_changes
from daemon.errors import InputNeeded, UsageError, WisedError
from daemon.render import fields, note, say

if TYPE_CHECKING:
    from daemon.cli.rehearsal import Changing
    from daemon.store.facts import Fact

#: states in which a fact waits for a person
WAITING = ("conflicting", "pending", "quarantined")
HELP = (
    "a  approve     the next cycle edits it in; older facts of its slot give way\n"
    "r  reject\n"
    "q  quarantine  set aside for a closer look\n"
    "s  skip        it goes on waiting\n"
    "e  everything  prompts, evidence, history and rivals of the fact\n"
    "?  this list\n"
    "x  end the review (also Ctrl-C, Ctrl-D)"
)
#: event of the life cycle, and how a decision without a reason is recorded
DECISIONS = {
    "a": ("approve", "approved in review"),
    "r": ("reject", "rejected in review"),
    "q": ("quarantine", "quarantined in review"),
}
ENDS = ("x", "\x03", "\x04", "")  #: the last: the terminal is gone


@dataclass
class Review:
    """One sitting: what was decided, and how a person is asked."""

    change: Changing
    reason: str  #: for all; empty: ask for each
    key: Callable[[], str]  #: waits for a key and returns it
    line: Callable[[str], str]  #: prompts for a line and returns it
    done: list[Result] = field(default_factory=list)

    def run(self, queue: list[int]) -> None:
        """Go through facts by their ids until the end is reached or asked for."""
        for place_, fact_id in enumerate(queue, 1):
            fact = self._show(fact_id, f"{place_} of {len(queue)}")
            if fact is not None and not self._decided(fact):
                return

    def _show(self, fact_id: int, place_: str) -> Fact | None:
        """Show a fact with what speaks for it; None when it doesn't wait any more."""
        from daemon.cli import review_view

        seen = review_view.view(self.change.store, fact_id)
        if seen.fact.state not in WAITING:
            note(f"fact {fact_id} is {seen.fact.state} by now")
            return None
        say("")
        fields([("review", place_), *review_view.lines(seen)])
        return seen.fact

    def _decided(self, fact: Fact) -> bool:
        """Take keys until a fact is decided on or skipped; False ends the review."""
        from daemon.cli import fact_view

        while True:
            say("[a]pprove [r]eject [q]uarantine [s]kip [e]verything [?] e[x]it")
            sys.stdout.flush()
            key = self.key()
            if key in ENDS:
                return False
            if key == "s":
                return True
            if key == "e":
                fields(fact_view.lines(fact_view.view(self.change.store, fact.id)))
            elif key in DECISIONS:
                if self._decide(fact, key):
                    return True
            else:
                say(HELP, multiline=True)

    def _decide(self, fact: Fact, key: str) -> bool:
        """Carry a decision out; False when it could not be, and the fact can still be judged."""
        from daemon.cli import decisions

        event, default = DECISIONS[key]
        store, expect = self.change.store, {fact.id: fact.rev}
        try:
            given = self.reason or self.line(f"why {event}? (Enter: {default!r}) ")
            why = reason_or(given, default)
            if event == "approve":
                found = decisions.approve_all(store, [fact.id], why, now(), expect)
            else:
                found = decisions.decide(store, [fact.id], event, why, now(), expect)
        except UsageError as error:
            note(f"Error: {error}")
            return False
        except EOFError:
            return False
        except WisedError as error:
            note(f"Error: {error}")
            return True  # it was changed meanwhile: what was shown is no longer so
        self.done += found
        fields((one.subject, one.result) for one in found)
        return True


def review(
    context: typer.Context,
    state: Annotated[
        str | None,
        typer.Option("--state", help="Only facts in it: pending, conflicting or quarantined."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Only facts it supports.")
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Decide on waiting facts one by one, oldest first; needs a terminal, or exits 10.

    Example: wised review --source world
    """
    if state is not None and state not in WAITING:
        raise UsageError(f"no fact waits as {state!r}", hint=f"one of {', '.join(WAITING)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputNeeded(
            "a review asks for decisions, and there is no terminal",
            hint="wised fact list --state pending, then wised fact approve ID",
        )
    from daemon.cli import queries
    from daemon.cli.rehearsal import changing
    from daemon.cli.terminal import keys

    with changing(place(context), dry_run=dry_run) as change, keys() as key:
        queue = queries.waiting(change.store, (state,) if state else WAITING, source)
        sitting = Review(change, reason_or(reason, ""), key, input)
        try:
            sitting.run(queue)
        except KeyboardInterrupt:
            say("")
        note(f"{len(sitting.done)} of {len(queue)} waiting facts decided.")
        if dry_run:
            show_changes(sitting.done, change.changes(), dry_run=True, as_json=False)


def register(parent: typer.Typer) -> None:
    """Add the command to the top level."""
    parent.command()(review)
