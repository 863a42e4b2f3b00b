"""Data to a terminal, a pipe or JSON. Contains no wised rules.

Feeds write what is stored, so every stored text passes `safe_text` before a terminal sees it. On
a terminal tables are drawn and folded; elsewhere they are tab-separated lines that cut nothing.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SCHEMA_VERSION = 1
#: format characters that are seen: Arabic and Kaithi number signs
_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u08e2\U000110bd")
#: invisible without being format characters: joiner, Hangul fillers
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
#: control, format (bidi, zero width, tags), surrogate, line and paragraph separator
_DANGEROUS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SECONDS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

Row = Sequence[object]


def _is_dangerous(char: str) -> bool:
    if char in _BLANKS:
        return True
    return unicodedata.category(char) in _DANGEROUS and char not in _VISIBLE_FORMATS


def _visible(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code <= 0xFF else f"⟦U+{code:04X}⟧"


def safe_text(text: object, *, multiline: bool = False) -> str:
    """Return text that cannot steer a terminal or hide: such characters are shown by their code.

    ``multiline`` lets line feeds and tabs through.
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    kept = "\n\t" if multiline else ""
    return "".join(_visible(c) if c not in kept and _is_dangerous(c) else c for c in plain)


def safe_json(value: object, *, indent: int | None = 2) -> str:
    """Return JSON that is readable beyond ASCII, yet has no character that steers a terminal.

    Those become Unicode escapes, which every JSON reader turns back into the same text.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    return "".join(_json_escape(c) if c != "\n" and _is_dangerous(c) else c for c in text)


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document with its ``schema_version`` to standard output."""
    sys.stdout.write(safe_json({"schema_version": SCHEMA_VERSION, **document}) + "\n")


def console() -> Console:
    """Return a console on standard output; it honours NO_COLOR and never reads markup."""
    from rich.console import Console

    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def styled(value: object, style: str = "") -> Text:
    """Return a value as one line for a screen that rich draws: safe, and never read as markup."""
    from rich.text import Text

    return Text(_cell(value), style)


def say(text: object, *, multiline: bool = False) -> None:
    """Write one line of data to standard output."""
    sys.stdout.write(safe_text(text, multiline=multiline) + "\n")


def note(text: object) -> None:
    """Write a message for the person, not for a program, to standard error."""
    sys.stderr.write(safe_text(text, multiline=True) + "\n")


def table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table: drawn on a terminal, else tab-separated with a heading line."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    for line in ([c.upper() for c in columns], *cells):
        sys.stdout.write("\t".join(line) + "\n")


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Write named values, one a line: aligned on a terminal, else tab-separated.

    A tuple or list as value takes a line for each of its items.
    """
    lines = [(safe_text(name), _cell(one)) for name, value in pairs for one in _each(value)]
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        start = f"{name:<{width}}  " if sys.stdout.isatty() else f"{name}\t"
        sys.stdout.write(f"{start}{text}\n")


def _each(value: object) -> Sequence[object]:
    if isinstance(value, (tuple, list)):
        return value or ("-",)
    return (value,)


def _cell(value: object) -> str:
    """Return a value as one line; times in UTC to the second, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return safe_text(value)


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        drawn.add_column(Text(name, "bold"), overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console().print(drawn)


def ago(since: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in its two largest units: ``3 h 5 min``."""
    return "never" if since is None else f"{span(now - since)} ago"


def span(length: timedelta) -> str:
    """Return a length of time in its two largest units; less than a second is ``0 s``."""
    left = max(0, int(length.total_seconds()))
    parts: list[str] = []
    for unit, seconds in _SECONDS:
        count, left = divmod(left, seconds)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(p for p in parts[:2] if not re.match("0 ", p)) or "0 s"


def times(value: datetime | None) -> str | None:
    """Return a time for JSON: RFC 3339 in UTC; None stays None."""
    return None if value is None else value.isoformat()
