"""`wised help`, `version` and `completion`: the command line on itself."""

from __future__ import annotations

import platform
import sqlite3
from enum import StrEnum
from typing import Annotated

import typer

from daemon import __version__
from daemon.cli.common import Json
from daemon.errors import EXIT_CODES
from daemon.render import fields, print_json, say, table

topics = typer.Typer(name="help")


class Shell(StrEnum):
    """A shell that can complete."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@topics.callback(invoke_without_command=True)
def topic(context: typer.Context) -> None:
    """Show what the commands have in common; alone: the commands."""
    if context.invoked_subcommand is None and context.parent is not None:
        typer.echo(context.parent.get_help())


@topics.command("exit-codes")
def exit_codes(as_json: Json = False) -> None:
    """List the exit codes and what they mean.

    Example: wised help exit-codes
    """
    if as_json:
        print_json({"exit_codes": [{"code": c, "meaning": m} for c, m in EXIT_CODES.items()]})
    else:
        table(("code", "meaning"), EXIT_CODES.items())


def version(as_json: Json = False) -> None:
    """Print the version, and what it was installed with.

    Example: wised version --json
    """
    from daemon.store.schema import MIGRATIONS

    found = {
        "wised": __version__,
        "schema": len(MIGRATIONS),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    if as_json:
        print_json(found)
    else:
        fields(found.items())


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")],
) -> None:
    """Print a script that lets a shell complete commands and options.

    Example: wised completion bash
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from daemon.cli import COMPLETE_VARIABLE

    script = get_completion_script(
        prog_name="wised", complete_var=COMPLETE_VARIABLE, shell=shell.value
    )
    say(script, multiline=True)


def register(parent: typer.Typer) -> None:
    """Add the commands to the top level."""
    parent.add_typer(topics)
    parent.command()(version)
    parent.command()(completion)
