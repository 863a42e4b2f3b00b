"""`wised doctor`: whether everything is in place, and how to mend what isn't."""

from __future__ import annotations

import typer

from daemon.cli.common import Json, now, place
from daemon.errors import Unhealthy
from daemon.render import note, print_json, table


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check configuration, files, database, releases and models; exit 6 when something fails.

    Example: wised doctor
    """
    from daemon.doctor import Verdict, examine

    found = list(examine(place(context), now()))
    failed = sum(one.verdict is Verdict.fail for one in found)
    if as_json:
        checks = [
            {"check": f.check, "verdict": f.verdict, "found": f.found, "mend": f.mend}
            for f in found
        ]
        print_json({"healthy": not failed, "checks": checks})
    else:
        table(
            ("check", "verdict", "found", "mend"),
            ((f.check, f.verdict, f.found, f.mend) for f in found),
        )
        if failed:
            note(f"{failed} of {len(found)} checks failed.")
    if failed:
        raise typer.Exit(Unhealthy.exit_code)


def register(parent: typer.Typer) -> None:
    """Add the command to the top level."""
    parent.command()(doctor)
