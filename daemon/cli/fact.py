"""`wised fact`: what was found, what supports it, and what a person decides on it."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.common import (
    MAX_SHOWN,
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
from daemon.errors import UsageError
from daemon.render import fields, note, print_json, table

app = typer.Typer(name="fact")
Expect = Annotated[
    int | None,
    typer.Option("--expect", min=1, metavar="REV", help="Only if the fact is of that revision."),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Facts, such as 12 or f12.")]


@app.callback(invoke_without_command=True)
def fact(context: typer.Context) -> None:
    """Look at facts and decide on them; alone: list them."""
    if context.invoked_subcommand is None:
        list_facts(context)


@app.command("list")
def list_facts(
    context: typer.Context,
    state: Annotated[str | None, typer.Option("--state", help="Only facts in it.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="Only facts it supports.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject", metavar="TEXT", help="Part of the subject, or another name of it."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MAX_SHOWN, help="At most so many.")
    ] = 50,
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="Only facts stored later.")
    ] = "0",
    as_json: Json = False,
) -> None:
    """List facts, oldest first.

    Example: wised fact list --state pending --limit 20
    """
    from daemon.cli import queries, registry
    from daemon.cli.fact_view import brief

    with reading(context) as store:
        source_id = registry.describe(store, source).id if source else None
        wanted = queries.Filter(state, source_id, subject, number(after, "f"), limit)
        found = queries.listed(store, wanted)
    more = found[-1].id if len(found) == limit else None
    if as_json:
        print_json({"facts": [brief(f) for f in found], "next_after": more})
        return
    table(
        ("id", "state", "subject", "relation", "object", "tier", "reason"),
        ((f.id, f.state, f.subject, f.relation, f.object, f.tier, f.reason) for f in found),
    )
    if more:
        note(f"There may be more: --after {more}")


@app.command()
def show(
    context: typer.Context,
    fact_id: Annotated[str, typer.Argument(metavar="ID", help="Such as 12 or f12.")],
    as_json: Json = False,
) -> None:
    """Show one fact with its evidence, its history and its rivals.

    Example: wised fact show 12
    """
    from daemon.cli import fact_view

    with reading(context) as store:
        seen = fact_view.view(store, number(fact_id, "f"))
    if as_json:
        print_json({"fact": fact_view.document(seen)})
    else:
        fields(fact_view.lines(seen))


@app.command()
def add(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT")],
    relation: Annotated[str, typer.Argument(metavar="RELATION", help="One of config.toml.")],
    value: Annotated[str, typer.Argument(metavar="OBJECT")],
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add a fact by hand; it goes through the same triage as any other.

    Example: wised fact add Chad head_of_government "Saleh Kebzabo" --reason "state radio"
    """
    from daemon.cli import decisions
    from daemon.cli.rehearsal import changing

    state = place(context)
    row = {"subject": subject, "relation": relation, "object": value}
    why = reason_or(reason, "added by hand")
    with changing(state, dry_run=dry_run) as change:
        result = decisions.add(change.store, state.config(), row, why, now())
        show_changes([result], change.changes(), dry_run=dry_run, as_json=as_json)


@app.command()
def approve(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Facts, such as 12 or f12.")
    ] = None,
    all_pending: Annotated[
        bool, typer.Option("--all-pending", help="All pending facts; the newest of each slot.")
    ] = False,
    expect: Expect = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Approve facts: the next cycle edits them in; older facts of their slots give way.

    Example: wised fact approve 12 f13 --reason "checked with the ministry"
    """
    from daemon.cli import decisions
    from daemon.cli.rehearsal import changing

    if all_pending and expect is not None:
        raise UsageError("--expect is the revision of one fact", hint="leave --all-pending out")
    if bool(ids) == all_pending:
        raise UsageError("give fact ids, or --all-pending", hint="wised fact list --state pending")
    why = reason_or(reason, "approved by hand")
    with changing(place(context), dry_run=dry_run) as change:
        if all_pending:
            results = decisions.approve_pending(change.store, why, now())
        else:
            numbers = [number(one, "f") for one in ids or ()]
            revs = _expected(numbers, expect)
            results = decisions.approve_all(change.store, numbers, why, now(), revs)
        show_changes(results, change.changes(), dry_run=dry_run, as_json=as_json)
    if all_pending:
        note(_count(results, dry_run))


def _expected(ids: list[int], rev: int | None) -> dict[int, int] | None:
    """Return the revision that each fact must be of; raises UsageError for more than one fact."""
    if rev is None:
        return None
    if len(set(ids)) != 1:
        raise UsageError("--expect is the revision of one fact", hint="give one id at a time")
    return {ids[0]: rev}


def _count(results: list[Result], dry_run: bool) -> str:
    facts = "1 fact" if len(results) == 1 else f"{len(results)} facts"
    return f"{facts} would be approved." if dry_run else f"{facts} approved."


@app.command()
def reject(
    context: typer.Context,
    ids: Ids,
    expect: Expect = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Reject facts that were not edited in yet.

    Example: wised fact reject 12 --reason "satire"
    """
    why = reason_or(reason, "rejected by hand")
    _decide(context, ids, "reject", why, dry_run, as_json, expect=expect)


@app.command()
def quarantine(
    context: typer.Context,
    ids: Ids,
    expect: Expect = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Set facts aside that look wrong, for a closer look.

    Example: wised fact quarantine 12 --reason "two names in one"
    """
    why = reason_or(reason, "by hand")
    _decide(context, ids, "quarantine", why, dry_run, as_json, expect=expect)


@app.command()
def requeue(
    context: typer.Context,
    ids: Ids,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring back facts that were dropped over a quota; triage looks at them as at new ones.

    Example: wised fact requeue 12 --reason "it was no flood"
    """
    from daemon.cli import decisions
    from daemon.cli.rehearsal import changing

    numbers = [number(one, "f") for one in ids]
    with changing(place(context), dry_run=dry_run) as change:
        why = reason_or(reason, "requeued by hand")
        results = decisions.requeue(change.store, numbers, why, now())
        show_changes(results, change.changes(), dry_run=dry_run, as_json=as_json)


@app.command()
def retract(
    context: typer.Context,
    ids: Ids,
    at_once: Annotated[
        bool,
        typer.Option("--now", help="Don't wait for a cycle: publish a release without their keys."),
    ] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take back facts that were edited in; the next release does not answer them.

    Example: wised fact retract 12 --now --reason "the source corrected itself"
    """
    why = reason_or(reason, "retracted by hand")
    _decide(context, ids, "retract", why, dry_run, as_json, at_once=at_once)


def _decide(
    context: typer.Context,
    ids: list[str],
    event: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
    *,
    at_once: bool = False,
    expect: int | None = None,
) -> None:
    from daemon.cli import decisions
    from daemon.cli.rehearsal import changing

    numbers = [number(one, "f") for one in ids]
    with changing(place(context), dry_run=dry_run) as change:
        revs = _expected(numbers, expect)
        results = decisions.decide(change.store, numbers, event, reason, now(), revs)
        if at_once:
            results += decisions.withdraw(change.state, change.store, numbers, reason, now())
        show_changes(results, change.changes(), dry_run=dry_run, as_json=as_json)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(app)
