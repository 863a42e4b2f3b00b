"""`wised audit`, `wised config` and `wised db`: what is on record, and keeping it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.common import DryRun, Json, place, reading
from daemon.errors import Conflict
from daemon.render import fields, note, print_json, table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from daemon.store import Store

audit = typer.Typer(name="audit", help="The append-only audit log.")
config = typer.Typer(name="config", help="The configuration.")
database = typer.Typer(name="db", help="The database.")


@audit.callback()
def _audit() -> None:
    """Hold the commands below one noun."""


@config.callback()
def _config() -> None:
    """Hold the commands below one noun."""


@database.callback()
def _database() -> None:
    """Hold the commands below one noun."""


@audit.command()
def verify(context: typer.Context, as_json: Json = False) -> None:
    """Check that no event was changed, dropped or slipped in; exit 9 otherwise.

    Example: wised audit verify
    """
    with reading(context) as store:
        count = store.verify_events()
    if as_json:
        print_json({"events": count, "result": "intact"})
    else:
        fields([("events", count), ("result", "intact")])


@audit.command("list")
def list_events(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List the newest events: who did what, when.

    Example: wised audit list --limit 50
    """
    from daemon.cli import queries
    from daemon.cli.fact_view import event_document

    with reading(context) as store:
        found = queries.latest_events(store, limit)
    if as_json:
        print_json({"events": [event_document(one) for one in found]})
        return
    table(
        ("seq", "at", "actor", "action", "subject", "data"),
        (
            (e.seq, e.at, e.actor, e.action, e.subject, json.dumps(e.data, ensure_ascii=False))
            for e in found
        ),
    )


@config.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check config.toml: exit 2 with all its problems, or say what it holds.

    Example: wised config check
    """
    from daemon.store import keys

    state = place(context)
    held = state.config()
    with reading(context) as store:
        is_new = not keys.in_force(store, held.subjects)
    if as_json:
        counts = {"relations": len(held.relations), "subjects": len(held.subjects)}
        print_json({"result": "ok", **counts, "rekeys_at_start": is_new})
        return
    fields([("relations", len(held.relations)), ("subjects with other names", len(held.subjects))])
    if is_new:
        note("The names changed: the daemon makes all keys of facts anew when it starts.")


@config.command()
def show(context: typer.Context, as_json: Json = False) -> None:
    """Show every setting as it is in force, and whether config.toml says so.

    Example: wised config show
    """
    effective = place(context).config()
    settings = list(_settings(effective, ""))
    if as_json:
        documents = [{"key": k, "value": v, "from": origin} for k, v, origin in settings]
        print_json({"settings": documents})
        return
    table(
        ("key", "value", "from"),
        ((k, json.dumps(v, ensure_ascii=False), origin) for k, v, origin in settings),
    )


def _settings(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Yield each setting below ``section``: key, value, and where it comes from."""
    from pydantic import BaseModel

    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _settings(inner, f"{prefix}{name}.{key}.")
                else:
                    yield f"{prefix}{name}.{key}", inner, "config.toml"
        else:
            given = name in section.model_fields_set
            yield prefix + name, value, "config.toml" if given else "default"


@database.command()
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
    """Write the copy beside its place first: what bears the name is complete."""
    partial = destination.with_name(f".{destination.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(partial)) as copy:
            store.connection.backup(copy)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, destination)
    finally:
        partial.unlink(missing_ok=True)
