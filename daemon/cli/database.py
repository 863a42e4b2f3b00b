"""`wised db`: checking, copying and shrinking the database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
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
from daemon.errors import Conflict, IntegrityError
from daemon.render import fields, note, print_json

if TYPE_CHECKING:
    from daemon.store import Store

MEND = "wised run --once tidies up after a daemon that was killed; else restore a backup"

app = typer.Typer(name="db", help="The database.")


@app.callback()
def _database() -> None:
    """Hold the commands below one noun."""


@app.command()
def check(
    context: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Compare indexes with their tables too; slower.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check pages, references, audit log and what must always hold; exit 9 for what is broken.

    What must always hold is looked at only while no daemon runs: it holds then.

    Example: wised db check --full
    """
    from daemon import invariants
    from daemon.store import health

    with reading(context) as store:
        if problems := health.problems(store, full=full):
            raise IntegrityError(
                f"the database: {problems[0]}", hint="restore a backup made by wised db backup"
            )
        events, size = store.verify_events(), health.size(store)
        if broken := (found := invariants.settled(place(context), store)):
            raise IntegrityError("what must always hold does not:\n" + "\n".join(broken), hint=MEND)
    if as_json:
        sizes = {"bytes": size.total, "unused_bytes": size.unused}
        known = {"invariants_hold": None if found is None else True}
        print_json({"result": "intact", "events": events, **known, **sizes})
    else:
        hold = "not looked at, a daemon runs" if found is None else "hold"
        fields([("result", "intact"), ("events", events), ("invariants", hold)])
        fields([("bytes", size.total), ("unused bytes", size.unused)])


@app.command()
def backup(
    context: typer.Context,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A file to be made.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Copy the database to a new file while the daemon runs.

    Example: wised db backup wised-backup.db
    """
    with reading(context) as store:
        if destination.exists():
            raise Conflict(f"{destination}: there is a file already", hint="name another file")
        if not dry_run:
            _backup(store, destination)
    if as_json:
        print_json({"dry_run": dry_run, "file": str(destination)})
    else:
        fields([(str(destination), "would be written" if dry_run else "written")])
    if not dry_run:
        note("Releases are not in it: copy the folder releases/ too.")


def _backup(store: Store, destination: Path) -> None:
    """Write the copy beside its place first: what bears the name is complete and sound."""
    from daemon.publish import sync_folder
    from daemon.store import health

    partial = destination.with_name(f".{destination.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(partial)) as copy:
            store.connection.backup(copy)
            if found := health.page_problems(copy):
                raise IntegrityError(f"the copy is damaged: {found[0]}", hint="wised db check")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, destination)
        sync_folder(destination.parent)
    finally:
        partial.unlink(missing_ok=True)


@app.command()
def vacuum(
    context: typer.Context,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give the space of deleted rows back to the disk; writers wait meanwhile.

    Example: wised db vacuum
    """
    from daemon.cli.rehearsal import changing
    from daemon.store import health

    why = reason_or(reason, "by hand")
    with changing(place(context), dry_run=dry_run) as change:
        unused = health.vacuum(change.store, why, now())
        done = [Result("database", f"{unused} bytes given back")]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
