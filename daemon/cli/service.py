"""Commands on the service: init, run, reload, stop, status, metrics, demo, pause, resume, logs."""

from __future__ import annotations

import json
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
LOG_FILE = "wised.jsonl"


class Work(StrEnum):
    """What the daemon can be kept from doing."""

    ingest = "ingest"
    edit = "edit"
    promote = "promote"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the state is to lie.")],
    dry_run: DryRun = False,
) -> None:
    """Make a state folder with its config.toml; one that is there is left as it is.

    Example: wised init state
    """
    from daemon import state
    from daemon.store import FILE

    if (folder / FILE).exists():
        say(f"{folder}: already_initialised")
        return
    if dry_run:
        say(f"{folder}: would be initialised")
        return
    made = state.init(folder, now())
    say(f"{folder}: initialised")
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
    """Run the daemon in the foreground; SIGTERM drains, a second one stops at once.

    Example: wised run --once --stages ingest,edit
    """
    wanted = frozenset(part.strip() for part in stages.split(","))
    if not wanted <= set(STAGES):
        unknown = sorted(wanted - set(STAGES))[0]
        raise UsageError(f"no stage {unknown!r}", hint=f"--stages {','.join(STAGES)}")
    state = place(context)
    from daemon import service

    raise typer.Exit(service.run(state, once=once, stages=wanted))


def reload(context: typer.Context, dry_run: DryRun = False) -> None:
    """Let the running daemon take over config.toml; a bad one is refused here.

    Example: wised reload
    """
    from daemon import config as configuration
    from daemon import reload as reloading

    state = place(context)
    new = state.config()
    if not state.running_file.exists():
        state.signal()  # raises NotRunning, as a rule
    keys = reloading.changed(configuration.load(state.running_file), new)
    reloading.check(keys)
    pid = state.signal(*(() if dry_run else (signal.SIGHUP,)))
    for key in keys:
        say(f"  {key}")
    say(
        f"pid {pid}: {'would be asked' if dry_run else 'asked'} to reload, {len(keys)} keys changed"
    )


def stop(
    context: typer.Context,
    at_once: Annotated[
        bool, typer.Option("--now", help="Do not wait for the current stage to end.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until it has ended.")
    ] = 120,
    dry_run: DryRun = False,
) -> None:
    """Stop the running daemon; its current stage may end within shutdown_grace_seconds.

    Example: wised stop --now
    """
    state = place(context)
    if dry_run:
        say(f"pid {state.signal()}: would be stopped")
        return
    # Two signals of one kind may arrive as one; these two never do.
    pid = state.signal(*((signal.SIGTERM, signal.SIGINT) if at_once else (signal.SIGTERM,)))
    until = time.monotonic() + timeout
    while state.daemon() is not None:
        if time.monotonic() >= until:
            raise Unhealthy(f"pid {pid} still runs", hint="wised stop --now; or a longer --timeout")
        time.sleep(0.1)
    say(f"pid {pid}: stopped")


def status(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when the service is unhealthy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say how the service stands, with the daemon up or down.

    Example: wised status --check
    """
    from daemon import status as standing
    from daemon import status_document
    from daemon.cli import status_view

    moment = now()
    with reading(context) as store:
        seen = standing.read(place(context), store, moment)
    if as_json:
        print_json(status_document.document(seen, moment))
    else:
        fields(status_view.lines(seen, moment))
    if check and seen.problems:
        raise typer.Exit(Unhealthy.exit_code)


def metrics(
    context: typer.Context,
    textfile: Annotated[
        Path | None, typer.Option("--textfile", metavar="PATH", help="Replace this file instead.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Print the metrics in Prometheus' text format, with the daemon up or down.

    Example: wised metrics
    """
    from daemon.observe import files
    from daemon.observe import metrics as figures

    with reading(context) as store:
        text = figures.text(figures.read(place(context), store, now()))
    if textfile is None:
        say(text.rstrip("\n"), multiline=True)
        return
    if not dry_run:
        files.replace(textfile, text, 0o644)
    note(f"{textfile}: would be written" if dry_run else f"{textfile}: written")


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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the daemon do one kind of work again.

    Example: wised resume promote
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    with changing(place(context), dry_run=dry_run) as change:
        with change.store.write():
            lifted = releases.unhold(change.store, work.value, now())
        done = [Result(work.value, "resumed" if lifted else "already_resumed")]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def logs(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Lines to show.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the newest lines of the daemon's log.

    Example: wised logs -n 50
    """
    from daemon.log_chain import readable
    from daemon.log_files import tail

    path = place(context).logs / LOG_FILE
    lines = tail(path, count)
    if as_json:
        print_json({"lines": [_parsed(line) or {"text": line} for line in lines]})
        return
    for line in lines:
        found = _parsed(line)
        say(line if found is None else readable(found))
    if not lines:
        note(f"{path}: nothing is logged yet")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (init, run, reload, stop, status, metrics, demo, pause, resume, logs):
        parent.command()(command)
