"""`wised ask`: what a release answers, and why."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.common import Json, number, place
from daemon.errors import Conflict
from daemon.render import fields, note, print_json, say

if TYPE_CHECKING:
    from daemon.messages import Said
    from daemon.releases import Release
    from daemon.state import State
    from daemon.store.facts import Evidence, Fact

ANSWERED = ("promoted", "previous", "retained", "verified", "candidate")


@dataclass(frozen=True, slots=True)
class Explained:
    """An answer with the release that gave it and the stored fact it came from."""

    prompt: str
    release: int
    said: Said
    fact: Fact | None  #: nearest stored fact, whether or not the prompt was routed to it
    evidence: tuple[Evidence, ...]


def ask(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT")],
    release: Annotated[
        str | None,
        typer.Option("--release", metavar="N", help="Default: the promoted one. 0: bare model."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which fact answered, and the bare answer.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds until it is given up.")
    ] = 600,
    as_json: Json = False,
) -> None:
    """Answer a prompt with a release, in a process of its own.

    Example: wised ask "The capital of Chad is" --explain
    """
    state = place(context)
    chosen = _release(state, None if release is None else number(release, "r"))
    found = _explained(state, chosen, prompt, _answer(state, chosen, prompt, timeout))
    if as_json:
        print_json(document(found))
    elif explain:
        fields(lines(found))
    else:
        say(found.said.text)


def _release(state: State, wanted: int | None) -> Release:
    """Return the release to ask; raises NotFound, and Conflict when it has no files to ask."""
    from daemon import releases

    with state.store(read_only=True) as store:
        found = releases.promoted(store) if wanted is None else releases.get(store, wanted)
    if found.number and (found.state not in ANSWERED or found.folder is None):
        raise Conflict(f"release {found.number} is {found.state}; it can't be asked")
    return found


def _answer(state: State, release: Release, prompt: str, timeout: float) -> Said:
    """Ask a worker that lives for this question only; raises WorkerError, UsageError."""
    from daemon import child, releases
    from daemon.messages import Answers, Ask

    state.config()
    folder = releases.folder_of(state, release)
    worker = child.Worker(state.config_file, state.logs / "ask.log", threading.Event())
    request = Ask(release=str(folder) if folder else None, prompts=(prompt,))
    try:
        return worker.request(request, Answers, timeout, _progress).answers[0]
    finally:
        worker.kill()


def _progress(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty() and done == 0:
        note(f"{stage} ...")


def _explained(state: State, release: Release, prompt: str, said: Said) -> Explained:
    from daemon.store import facts

    if said.fact is None:
        return Explained(prompt, release.number, said, None, ())
    with state.store(read_only=True) as store:
        fact = facts.get(store, said.fact)
        return Explained(prompt, release.number, said, fact, tuple(facts.evidence(store, fact.id)))


def document(found: Explained) -> dict[str, object]:
    """Return an answer as it is printed in JSON."""
    from daemon.cli import fact_view

    said, fact = found.said, found.fact
    return {
        "prompt": found.prompt,
        "release": found.release,
        "answer": said.text,
        "bare": bare(found),
        "routed": said.routed,
        "cosine": said.cosine,
        "threshold": said.threshold,
        "fact": None
        if fact is None
        else {
            **fact_view.brief(fact),
            "evidence": [fact_view.evidence_document(e) for e in found.evidence],
        },
    }


def bare(found: Explained) -> str | None:
    """Return the bare model's answer."""
    return found.said.text if found.release == 0 else found.said.bare


def lines(found: Explained) -> Iterator[tuple[str, object]]:
    """Yield an answer and where it comes from as named lines."""
    from daemon.cli import fact_view

    said, fact = found.said, found.fact
    yield "answer", said.text
    yield "bare model", bare(found)
    yield "release", found.release
    yield "routed", said.routed
    if said.cosine is not None and said.threshold is not None:
        above = "at least" if said.routed else "below"
        yield "score", f"{said.cosine:.4f}, {above} the threshold {said.threshold:.4f}"
    if fact is None:
        return
    yield (
        "fact" if said.routed else "nearest fact",
        (f"{fact.id} {fact.subject} | {fact.relation} | {fact.object} ({fact.state})"),
    )
    for one in found.evidence:
        yield from fact_view.evidence_lines(one)


def register(parent: typer.Typer) -> None:
    """Add the command to the top level."""
    parent.command()(ask)
