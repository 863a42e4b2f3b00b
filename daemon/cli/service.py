"""Commands on the service: init, run, reload, stop, status, metrics, demo, pause, resume."""

from __future__ import annotations

import signal
import time
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
from daemon.errors import NotRunning, TimedOut, Unhealthy, UsageError
from daemon.render import fields, note, print_json, say

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.state import State
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
        str,
        typer.Option("--stages", metavar="LIST", help="ingest: poll, read; edit: sort out, write."),
    ] = ",".join(STAGES),
    allow_network_fs: Annotated[
        bool,
        typer.Option("--allow-network-fs", help="Although the state may lie on one: at your risk."),
    ] = False,
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

    code = service.run(state, once=once, stages=wanted, allow_network_fs=allow_network_fs)
    raise typer.Exit(code)


def reload(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until it is in force.")
    ] = 5,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the running daemon take over config.toml; a bad one is refused here.

    It does so between two steps; one that takes longer than the timeout is not waited for.

    Example: wised reload
    """
    from daemon import reload as reloading

    state = place(context)
    new = state.config()
    pid = state.signal()  # raises NotRunning; what the last daemon had in force is no matter then
    keys = reloading.to_come(state, new)
    reloading.check(keys)
    in_force = False
    if not dry_run:
        state.signal(signal.SIGHUP)
        in_force = _comes_into_force(state, new, timeout)
    if as_json:
        print_json({"dry_run": dry_run, "pid": pid, "changed": list(keys), "in_force": in_force})
        return
    for key in keys:
        say(f"  {key}")
    asked = "would be asked to reload" if dry_run else "asked to reload"
    say(f"pid {pid}: {'in force' if in_force else asked}, {len(keys)} keys changed")
    if not dry_run and not in_force:
        note("It is at work and reloads after that: wised logs has config.reloaded or .refused.")


def _comes_into_force(state: State, new: Config, timeout: float) -> bool:
    """Wait until the running daemon has taken over a configuration; False: not in that time."""
    from daemon import reload as reloading

    until = time.monotonic() + timeout
    while reloading.to_come(state, new):
        if time.monotonic() >= until:
            return False
        time.sleep(0.1)
    return True


def stop(
    context: typer.Context,
    at_once: Annotated[
        bool, typer.Option("--now", help="Do not wait for the current stage to end.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until it has ended.")
    ] = 120,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop the running daemon; its current stage may end within shutdown_grace_seconds.

    Example: wised stop --now
    """
    state = place(context)
    if dry_run:
        _stopped(state.signal(), "would be stopped", dry_run, as_json)
        return
    # Two signals of one kind may arrive as one; these two never do.
    pid = state.signal(*((signal.SIGTERM, signal.SIGINT) if at_once else (signal.SIGTERM,)))
    until = time.monotonic() + timeout
    while state.daemon() is not None:
        if time.monotonic() >= until:
            raise TimedOut(f"pid {pid} still runs", hint="wised stop --now; or a longer --timeout")
        time.sleep(0.1)
    _stopped(pid, "stopped", dry_run, as_json)


def _stopped(pid: int, result: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": dry_run, "pid": pid, "result": result})
    else:
        say(f"pid {pid}: {result}")


def status(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 7 when no daemon runs, 6 when it is unhealthy.")
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
    from daemon import status_document
    from daemon.cli import status_view

    if watch:
        from daemon.cli import watch as watching

        if check or as_json:
            raise UsageError("--watch ends with no verdict and is no one document")
        watching.run(place(context), period)
        return
    moment = now()
    with reading(context) as store:
        seen = standing.read(place(context), store, moment)
    if as_json:
        print_json(status_document.document(seen, moment))
    else:
        fields(status_view.lines(seen, moment))
    if check and seen.daemon is None:
        raise typer.Exit(NotRunning.exit_code)
    if check and seen.problems:
        raise typer.Exit(Unhealthy.exit_code)


def metrics(
    context: typer.Context,
    textfile: Annotated[
        Path | None, typer.Option("--textfile", metavar="PATH", help="Replace this file instead.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Print the metrics in Prometheus' text format, with the daemon up or down.

    Example: wised metrics
    """
    from daemon.observe import files
    from daemon.observe import metrics as figures

    with reading(context) as store:
        found = figures.read(place(context), store, now())
    if textfile is not None:
        if not dry_run:
            files.replace(textfile, figures.text(found), 0o644)
        if as_json:
            print_json({"dry_run": dry_run, "file": str(textfile)})
        else:
            note(f"{textfile}: would be written" if dry_run else f"{textfile}: written")
    elif as_json:
        print_json({"metrics": figures.document(found)})
    else:
        say(figures.text(found).rstrip("\n"), multiline=True)


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
    for command in (init, run, reload, stop, status, metrics, demo, pause, resume):
        parent.command()(command)
