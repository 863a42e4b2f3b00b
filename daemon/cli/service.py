"""Commands on the service as a whole: init, run, status, demo, pause, resume."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.common import (
    DryRun,
    Json,
    Reason,
    Result,
    now,
    place,
    reading,
    reason_or,
    show_changes,
)
from daemon.errors import Unhealthy, UsageError
from daemon.render import fields, note, print_json, say

if TYPE_CHECKING:
    from daemon.store import Store

STAGES = ("ingest", "edit")


class Work(StrEnum):
    """What the daemon can be kept from doing."""

    ingest = "ingest"
    edit = "edit"
    promote = "promote"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the state is to lie.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a state folder with its config.toml; one that is there is left as it is.

    Example: wised init state
    """
    from daemon import state
    from daemon.store import FILE

    is_there = (folder / FILE).exists()
    if not dry_run and not is_there:
        state.init(folder, now())
    result = "already_initialised" if is_there else "initialised"
    if as_json:
        print_json({"dry_run": dry_run, "results": [{"subject": str(folder), "result": result}]})
        return
    if dry_run and not is_there:
        result = "would be initialised"
    say(f"{folder}: {result}")
    if dry_run or is_there:
        return
    made = state.State(folder)
    note(
        f"Next: look through {made.config_file}, then\n"
        f"  wised -C {folder} source add feed URL --tier normal\n"
        f"  wised -C {folder} run"
    )


def run(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, then end.")] = False,
    stages: Annotated[
        str, typer.Option("--stages", metavar="LIST", help="What to do: ingest, edit.")
    ] = ",".join(STAGES),
) -> None:
    """Run the daemon in the foreground.

    Example: wised run --once --stages ingest,edit
    """
    wanted = frozenset(part.strip() for part in stages.split(","))
    if not wanted <= set(STAGES):
        unknown = sorted(wanted - set(STAGES))[0]
        raise UsageError(f"no stage {unknown!r}", hint=f"--stages {','.join(STAGES)}")
    state = place(context)
    from daemon import service

    raise typer.Exit(service.run(state, once=once, stages=wanted))


def status(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when the service is unhealthy.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until interrupted, on one live screen.")
    ] = False,
    period: Annotated[
        float, typer.Option("--period", min=0.1, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Say how the service stands, with the daemon up or down.

    Example: wised status --check
    """
    from daemon import status as standing
    from daemon.cli import status_view

    if watch:
        from daemon.cli import watch as watching

        if check or as_json:
            raise UsageError("--watch ends with no verdict and is no one document")
        watching.run(place(context), period)
        return
    with reading(context) as store:
        seen = standing.read(place(context), store)
    moment = now()
    if as_json:
        print_json(status_view.document(seen, moment))
    else:
        fields(status_view.lines(seen, moment))
    if check and seen.problems:
        raise typer.Exit(Unhealthy.exit_code)


def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave the demo's state there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the demo world end to end in a fresh folder.

    Example: wised demo
    """
    from demo import scenario

    raise typer.Exit(scenario.run(keep, as_json))


def pause(
    context: typer.Context,
    work: Annotated[Work, typer.Argument(help="What is to stop.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Keep the daemon from one kind of work until it is resumed.

    Example: wised pause promote --reason "election night"
    """
    from daemon.cli.rehearsal import changing

    why = reason_or(reason, "paused by hand")
    with changing(place(context), dry_run=dry_run) as change:
        done = [Result(work.value, _pause(change.store, work.value, why))]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def _pause(store: Store, kind: str, reason: str) -> str:
    from daemon import releases

    with store.write():
        if kind in releases.holds(store):
            return "already_paused"
        releases.hold(store, kind, reason, now())
    return "paused"


def resume(
    context: typer.Context,
    work: Annotated[Work, typer.Argument(help="What is to go on.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the daemon do one kind of work again.

    Example: wised resume promote
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    why = reason_or(reason, "resumed by hand")
    with changing(place(context), dry_run=dry_run) as change:
        with change.store.write():
            lifted = releases.unhold(change.store, work.value, now(), why)
        done = [Result(work.value, "resumed" if lifted else "already_resumed")]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (init, run, status, demo, pause, resume):
        parent.command()(command)
