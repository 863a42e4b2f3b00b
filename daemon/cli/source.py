"""`wised source`: what is read, and what it would bring."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.common import (
    MAX_SHOWN,
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
from daemon.render import ago, fields, note, print_json, table, times

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.cli.registry import DeadLetter, Described

app = typer.Typer(name="source")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A source's name.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|NAME",
        help="How a log's rows are written; docs/sources.md has the names.",
    ),
]
AllowPrivate = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-private",
        metavar="NETWORK|any",
        help="A private network that it may be fetched from, such as 10.0.0.0/8; repeatable.",
    ),
]


class Kind(StrEnum):
    """What a source is."""

    feed = "feed"
    log = "log"


class Tier(StrEnum):
    """How far a source is believed."""

    trusted = "trusted"
    normal = "normal"
    untrusted = "untrusted"


@app.callback(invoke_without_command=True)
def source(context: typer.Context) -> None:
    """Manage the feeds and correction logs that are read; alone: list them."""
    if context.invoked_subcommand is None:
        list_sources(context)


@app.command()
def add(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="An RSS or Atom feed, or a JSON lines file.")],
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="A URL, or a path.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Default: the host, or the file's name.")
    ] = None,
    tier: Annotated[Tier, typer.Option("--tier", help="How far it is believed.")] = Tier.normal,
    format: Format = "auto",
    allow_private: AllowPrivate = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add a source; the daemon polls it from now on.

    Example: wised source add feed https://example.org/changes.atom --name world --tier trusted
    """
    from daemon.cli import registry
    from daemon.cli.rehearsal import changing

    new = registry.requested(kind.value, location, name, tier.value, allow_private or (), format)
    why = reason_or(reason, "")
    with changing(place(context), dry_run=dry_run) as change:
        result = Result(f"source {new.name}", registry.add(change.store, new, now(), why))
        show_changes([result], change.changes(), dry_run=dry_run, as_json=as_json)
    if kind is Kind.log and not Path(new.location).exists():
        note(f"{new.location} is not there yet: until it is, the source fails.")


@app.command("list")
def list_sources(context: typer.Context, as_json: Json = False) -> None:
    """List the sources that were not removed.

    Example: wised source list --json
    """
    from daemon.cli import registry

    with reading(context) as store:
        sources = registry.described(store)
    if as_json:
        print_json({"sources": [_document(one) for one in sources]})
        return
    columns = (
        "name",
        "kind",
        "tier",
        "state",
        "facts",
        "dropped",
        "last ok",
        "failures",
        "location",
    )
    moment = now()
    table(
        columns,
        (_row(one, moment) for one in sources),
    )


def _row(one: Described, moment: datetime) -> tuple[object, ...]:
    return (
        one.name,
        one.kind,
        one.tier,
        one.state,
        one.facts,
        one.dropped,
        ago(one.last_ok_at, moment),
        one.failures,
        one.location,
    )


@app.command()
def show(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show one source: where it is, how its polls went, what it brought, what could not be read.

    Example: wised source show world
    """
    from daemon.cli import registry

    with reading(context) as store:
        one = registry.describe(store, name)
        letters = registry.dead_letters(store, one.id)
    document = _document(one)
    if as_json:
        print_json({"source": {**document, "latest_dead_letters": [_letter(x) for x in letters]}})
    else:
        fields(document.items())
        fields((f"  {x.location}", f"{x.code}: {x.message}") for x in letters)
        if document["proposed_url"] is not None:
            note(f"It says that it has moved: wised source set-url {name} follows it.")


def _letter(one: DeadLetter) -> dict[str, object]:
    return {
        "received_at": times(one.received_at),
        "location": one.location,
        "code": one.code,
        "message": one.message,
    }


def _document(one: Described) -> dict[str, object]:
    return {
        "name": one.name,
        "kind": one.kind,
        "location": one.location,
        "format": one.format,
        "tier": one.tier,
        "state": one.state,
        "allow_private": one.allow_private,
        "failures": one.failures,
        "last_error": one.last_error,
        "last_ok_at": times(one.last_ok_at),
        "next_poll_at": times(one.next_poll_at),
        "last_full_at": times(one.last_full_at),
        "proposed_url": one.proposed_url,
        "entries": one.entries,
        "facts": one.facts,
        "dead_letters": one.dead_letters,
        "dropped": one.dropped,
    }


@app.command()
def pause(
    context: typer.Context,
    name: Name,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop polling a source until it is resumed.

    Example: wised source pause world --reason "moving house"
    """
    _change(context, name, "pause", reason, dry_run, as_json)


@app.command()
def resume(
    context: typer.Context,
    name: Name,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Poll a paused source again, or one that the server said was gone.

    Example: wised source resume world
    """
    _change(context, name, "resume", reason, dry_run, as_json)


@app.command("set-url")
def set_url(
    context: typer.Context,
    name: Name,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Default: where the feed says it has moved for good."),
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fetch a feed from another URL from now on; entries it brought are known again by their ids.

    Example: wised source set-url world https://example.org/new.atom
    """
    from daemon.cli import moving
    from daemon.cli.rehearsal import changing

    with changing(place(context), dry_run=dry_run) as change:
        moved = moving.set_url(change.store, name, url, reason_or(reason, ""), now())
        result = Result(f"source {name}", moved.result)
        show_changes([result], change.changes(), dry_run=dry_run, as_json=as_json)
    if moved.warning:
        note(moved.warning)


@app.command()
def remove(
    context: typer.Context,
    name: Name,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Never poll a source again; its facts and their evidence stay.

    Example: wised source remove world --dry-run
    """
    _change(context, name, "remove", reason, dry_run, as_json)


def _change(
    context: typer.Context, name: str, event: str, reason: str, dry_run: bool, as_json: bool
) -> None:
    from daemon.cli import registry
    from daemon.cli.rehearsal import changing

    with changing(place(context), dry_run=dry_run) as change:
        state = registry.change(change.store, name, event, reason_or(reason, ""), now())
        result = Result(f"source {name}", state)
        show_changes([result], change.changes(), dry_run=dry_run, as_json=as_json)


@app.command()
def test(
    context: typer.Context,
    location: Annotated[
        str, typer.Argument(metavar="LOCATION|NAME", help="A URL, a path or a source's name.")
    ],
    allow_private: AllowPrivate = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="auto|NAME", help="Default: the source's own, or told by the keys."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MAX_SHOWN, help="Facts to show.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """Read a source from its start and show the facts it would bring; store nothing.

    Example: wised source test corrections.jsonl
    """
    from daemon.cli import trial

    moment, state = now(), place(context)
    found = trial.poll(state, location, allow_private or (), moment, format)
    over = trial.over(state, location, found, moment)
    if as_json:
        print_json(trial.document(found, limit, over))
        return
    for columns, rows in trial.tables(found, limit):
        table(columns, rows)
    note(trial.summary(found, limit))
    for one in over:
        note(str(one))


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
