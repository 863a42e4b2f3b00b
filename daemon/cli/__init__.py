"""The command line: `app` is its grammar, `main` the console entry point.

A command parses, calls one function of the library and renders. Nothing heavy is imported before
a command needs it: `wised --help` and `wised status` load neither a model nor an HTTP client.
Exit codes are those of `daemon.errors`; `wised help exit-codes` lists them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from daemon import __version__
from daemon.cli import (
    about,
    ask,
    config,
    database,
    doctor,
    fact,
    logs,
    records,
    release,
    review,
    service,
    source,
    wait,
)
from daemon.cli.common import STATE_VARIABLE
from daemon.cli.failure import INTERRUPTED, OUTPUT_CLOSED, report

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="wised",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: wised help exit-codes.",
)
app.add_typer(source.app)
app.add_typer(fact.app)
app.add_typer(release.app)
app.add_typer(records.app)
app.add_typer(config.app)
app.add_typer(database.app)
app.add_typer(about.topics)
for part in (service, review, release, ask, wait, logs, doctor, about):
    part.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wised {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def wised(
    context: typer.Context,
    state: Annotated[
        Path,
        typer.Option(
            "-C", "--state", metavar="DIR", envvar=STATE_VARIABLE, help="The state folder."
        ),
    ] = Path("state"),
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Keep a language model's knowledge current: fact updates in, verified edits out.

    Example: wised init state
    """
    context.obj = state
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code. Only bugs leave as exceptions."""
    if about.COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        result = app(args=list(arguments), prog_name="wised", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; Python's own flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except Exception as error:
        return report(error, arguments)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run the command line that the process was started with."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
