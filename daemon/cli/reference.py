"""The reference part of docs/cli.md, from the commands as they are registered.

``python -m daemon.cli.reference`` writes it into the page; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from daemon.cli import grammar

BEGIN, END = "<!-- reference -->\n", "<!-- end of the reference -->\n"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
#: exit codes of a command beside those that all have
ALSO: dict[str, tuple[int, ...]] = {
    "run": (5, 7, 143),
    "reload": (4, 7),
    "stop": (4, 7, 8),
    "status": (6, 7),
    "demo": (4, 6),
    "source add": (4, 5),
    "source pause": (4, 5),
    "source resume": (4, 5),
    "source set-url": (4,),
    "source remove": (5,),
    "fact approve": (4,),
    "fact reject": (4,),
    "fact quarantine": (4,),
    "fact requeue": (4,),
    "fact retract": (4, 5),
    "review": (10,),
    "release verify": (4,),
    "release approve": (4,),
    "release promote": (4, 5),
    "release pin": (4,),
    "rollback": (4, 5),
    "ask": (4, 8),
    "wait": (6, 8),
    "doctor": (6,),
    "db backup": (4,),
}
#: options that the page explains once
COMMON = ("--json", "--dry-run", "--reason", "--help")


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command below ``command`` with the words that name it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        yield from leaves(child, (*words, name))


def reference() -> str:
    """Return the commands as Markdown, grouped by their first word, in help's order."""
    found = list(leaves(typer.main.get_command(grammar())))
    return "\n".join(_section(" ".join(words), command) for words, command in found)


def _section(name: str, command: Any) -> str:
    sentence, _, rest = command.help.partition("\n")
    example = next(line for line in rest.splitlines() if line.startswith("Example: "))
    lines = [f"### wised {name}\n", sentence, "", f"    {example.removeprefix('Example: ')}", ""]
    options = [one for one in map(_option, command.params) if one]
    if options:
        lines += [*options, ""]
    shared = [f"`{one}`" for one in COMMON[:3] if one in _names(command)]
    codes = (*(str(code) for code in ALSO.get(name, ())),)
    also = f"exit codes also {', '.join(codes)}" if codes else ""
    lines += ["; ".join(filter(None, (f"Takes {', '.join(shared)}" if shared else "", also))), ""]
    return "\n".join(lines).rstrip() + "\n"


def _names(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def _option(parameter: Any) -> str:
    """Return an option of its own as an item of a list; empty for arguments and common ones."""
    if parameter.param_type_name != "option" or set(parameter.opts) & set(COMMON):
        return ""
    return f"- `{', '.join(parameter.opts)}`: {parameter.help}"


def page(text: str) -> str:
    """Return the page with its reference part made anew; raises ValueError without the marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
