"""`wised release` and `wised rollback`: which side memory answers. None of it loads a model."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.common import (
    DryRun,
    Json,
    Reason,
    Result,
    now,
    number,
    place,
    reading,
    reason_or,
    show_changes,
)
from daemon.render import fields, note, print_json, table

app = typer.Typer(name="release")
Number = Annotated[str, typer.Argument(metavar="N", help="A release, such as 3 or r3.")]


@app.callback(invoke_without_command=True)
def release(context: typer.Context) -> None:
    """Choose which release answers, the numbered side memories; alone: list them."""
    if context.invoked_subcommand is None:
        list_releases(context)


@app.command("list")
def list_releases(context: typer.Context, as_json: Json = False) -> None:
    """List the releases, newest first.

    Example: wised release list
    """
    from daemon import releases
    from daemon.cli import queries, release_view

    with reading(context) as store:
        found = releases.newest_first(releases.all_releases(store))
        held = queries.fact_counts(store)
    if as_json:
        documents = [release_view.brief(r, held.get(r.number, 0)) for r in found]
        print_json({"releases": documents})
        return
    table(
        ("number", "state", "kind", "facts", "pinned", "created", "promoted", "reason"),
        (release_view.row(r, held.get(r.number, 0)) for r in found),
    )


@app.command()
def show(context: typer.Context, which: Number, as_json: Json = False) -> None:
    """Show one release: its measures, its facts, its history.

    Example: wised release show 0
    """
    from daemon.cli import release_view

    with reading(context) as store:
        seen = release_view.view(store, number(which, "r"))
    if as_json:
        print_json({"release": release_view.document(seen)})
    else:
        fields(release_view.lines(seen))


@app.command()
def diff(context: typer.Context, old: Number, new: Number, as_json: Json = False) -> None:
    """Say which facts a release holds that another one does not, and which it replaced.

    Example: wised release diff 1 2
    """
    from daemon.cli import release_view

    with reading(context) as store:
        found = release_view.difference(store, number(old, "r"), number(new, "r"))
    if as_json:
        print_json(release_view.difference_document(found))
        return
    table(
        ("", "fact", "subject", "relation", "object", "before"),
        release_view.difference_rows(found),
    )


@app.command()
def verify(
    context: typer.Context,
    which: Number,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make it again from the ledger; compare the bytes.")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="Ask its probes again; compare with the record.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a release's files against its manifest; exit 9 when something differs.

    Example: wised release verify 0 --rebuild --answers
    """
    from daemon.cli import verification

    state, wanted = place(context), number(which, "r")
    found = verification.verified(state, wanted, rebuild=rebuild, answers=answers)
    if as_json:
        print_json({"release": wanted, **found.document()})
    else:
        fields(found.lines(wanted))


@app.command()
def approve(
    context: typer.Context,
    which: Number,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let the daemon promote a verified release in its next cycle, a hold notwithstanding.

    Example: wised release approve 3 --reason "probes looked through"
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    wanted, why = number(which, "r"), reason_or(reason, "approved by hand")
    with changing(place(context), dry_run=dry_run) as change:
        done = [Result(f"release {wanted}", releases.approve(change.store, wanted, now(), why))]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


@app.command()
def promote(
    context: typer.Context,
    which: Number,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a verified or an earlier release answer from now on.

    Example: wised release promote 3 --reason "seen by two people"
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    wanted, why = number(which, "r"), reason_or(reason, "promoted by hand")
    with changing(place(context), dry_run=dry_run) as change:
        if releases.get(change.store, wanted).state == "promoted":
            releases.relink(change.state, change.store)
            result = "already_promoted"
        else:
            releases.promote(change.state, change.store, wanted, now(), why)
            result = "promoted"
        done = [Result(f"release {wanted}", result)]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def rollback(
    context: typer.Context,
    to: Annotated[
        str | None, typer.Option("--to", metavar="N", help="Default: the one that it grew from.")
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let an earlier release answer at once, and hold automatic promotion.

    Example: wised rollback --to 2 --reason "wrong capital"
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    wanted = None if to is None else number(to, "r")
    why = reason_or(reason, "by hand")
    with changing(place(context), dry_run=dry_run) as change:
        before = releases.promoted(change.store).number
        after = releases.rollback(change.state, change.store, wanted, now(), why)
        result = "already_promoted" if before == after else "promoted"
        done = [Result(f"release {after}", result)]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)
    if not dry_run and not as_json and before != after:
        note(
            "Promotion is on hold until: wised resume promote\n"
            "Facts that are verified now wait: wised fact retract ID takes a wrong one out,"
            " wised fact approve ID brings a right one back."
        )


@app.command()
def prune(
    context: typer.Context,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=0, help="Newest to keep. Default: [daemon] keep_releases."),
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete the files of old releases; never the promoted, previous or pinned one's.

    Example: wised release prune --keep 5 --dry-run
    """
    from daemon import releases
    from daemon.cli.rehearsal import changing

    state = place(context)
    kept = state.config().daemon.keep_releases if keep is None else keep
    with changing(state, dry_run=dry_run) as change:
        gone = releases.prune(change.state, change.store, kept, now(), reason_or(reason, ""))
        done = [Result(f"release {one}", "pruned") for one in gone]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


@app.command()
def pin(
    context: typer.Context,
    which: Number,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Keep a release's files, however old it gets.

    Example: wised release pin 3
    """
    _pin(context, which, True, reason_or(reason, "by hand"), dry_run, as_json)


@app.command()
def unpin(
    context: typer.Context,
    which: Number,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a pinned release go when its time comes.

    Example: wised release unpin 3
    """
    _pin(context, which, False, reason_or(reason, "by hand"), dry_run, as_json)


def _pin(
    context: typer.Context, which: str, pinned: bool, reason: str, dry_run: bool, as_json: bool
) -> None:
    from daemon.cli import release_view
    from daemon.cli.rehearsal import changing

    wanted = number(which, "r")
    with changing(place(context), dry_run=dry_run) as change:
        result = release_view.set_pinned(change.store, wanted, pinned, now(), reason)
        done = [Result(f"release {wanted}", result)]
        show_changes(done, change.changes(), dry_run=dry_run, as_json=as_json)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
    parent.command()(rollback)
