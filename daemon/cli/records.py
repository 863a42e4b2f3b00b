"""`wised audit`: who did what, and whether the record is whole."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from daemon.cli.common import MAX_SHOWN, Json, moment, reading
from daemon.render import fields, print_json, safe_json, table

app = typer.Typer(name="audit", help="The append-only audit log.")


@app.callback()
def _audit() -> None:
    """Hold the commands below one noun."""


@app.command()
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


@app.command("list")
def list_events(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MAX_SHOWN, help="At most so many.")
    ] = 20,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="KIND:ID", help="Only of it, as fact:12.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the newest events: who did what, when.

    Example: wised audit list --limit 50
    """
    from daemon.cli import queries
    from daemon.cli.fact_view import event_document

    with reading(context) as store:
        found = queries.latest_events(store, limit, subject)
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


@app.command()
def export(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="2026-01-31, or 2 h, 7 d ago.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write every event with its hashes, oldest first: JSON lines, or one document with --json.

    Example: wised audit export --since 2026-01-31
    """
    from daemon.cli import queries

    start = None if since is None else moment(since)
    with reading(context) as store:
        events = queries.export(store, start)
        if as_json:
            print_json({"events": list(events)})
            return
        for event in events:
            sys.stdout.write(safe_json(event, indent=None) + "\n")


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
