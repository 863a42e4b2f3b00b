"""The command line: `app` is its grammar, `main` the console entry point.

A command parses, calls one function of the library and renders. Nothing heavy is imported before
a command needs it: `wised --help` and `wised status` load neither a model nor an HTTP client.
Exit codes are those of `daemon.errors`; `wised help exit-codes` lists them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon import __version__
from daemon.cli.common import STATE_VARIABLE
from daemon.cli.failure import INTERRUPTED, OUTPUT_CLOSED, report

__all__ = ["PARTS", "app", "grammar", "main", "run"]

COMPLETE_VARIABLE = "_WISED_COMPLETE"  #: in the environment, asks for completions
#: the module that has each command or noun, in the order in which help lists them
PARTS = {
    "init": "service",
    "run": "service",
    "reload": "service",
    "stop": "service",
    "status": "service",
    "metrics": "service",
    "demo": "service",
    "pause": "service",
    "resume": "service",
    "source": "source",
    "fact": "fact",
    "review": "review",
    "release": "release",
    "rollback": "release",
    "ask": "ask",
    "wait": "wait",
    "logs": "logs",
    "audit": "records",
    "doctor": "doctor",
    "config": "config",
    "db": "database",
    "help": "about",
    "version": "about",
    "completion": "about",
}


def grammar(words: Iterable[str] = PARTS) -> typer.Typer:
    """Return the command line with the commands that begin with one of ``words``, and neighbours.

    All of it takes a tenth of a second to build, which a single command need not.
    """
    made = typer.Typer(
        name="wised",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog="Exit codes: wised help exit-codes.",
    )
    made.callback(invoke_without_command=True)(wised)
    for part in dict.fromkeys(PARTS[word] for word in words):
        import_module(f"daemon.cli.{part}").register(made)
    return made


def __getattr__(name: str) -> Any:
    """Return the whole grammar as ``app``."""
    if name == "app":
        return grammar()
    raise AttributeError(name)


def _needed(arguments: Sequence[str]) -> Iterable[str]:
    """Return the first words that a command line needs: its own, or all where it has none."""
    rest = iter(arguments)
    for word in rest:
        if word in ("-C", "--state"):
            next(rest, None)
        elif word in PARTS:
            return PARTS if word == "help" else (word,)
        elif not word.startswith(("-C", "--state=")):
            break
    return PARTS


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wised {__version__}")
        raise typer.Exit


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
    if COMPLETE_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        words = PARTS if COMPLETE_VARIABLE in os.environ else _needed(arguments)
        result = grammar(words)(args=list(arguments), prog_name="wised", standalone_mode=False)
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
