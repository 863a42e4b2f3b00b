"""The formats of correction logs: each turns its rows into what `Extractor.from_row` takes.

A row's format is named, or found by the keys that each format requires; a row that fits none or
several is refused, never guessed at. Contains no file access.
"""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats import (
    argilla,
    easyedit,
    label_studio,
    langfuse_corrections,
    langfuse_dataset,
    langsmith_examples,
    langsmith_feedback,
    ms_swift,
    native,
    openai_dpo,
    openai_evals,
    trl,
)
from ingest.formats.format import Format, Join, Row

__all__ = ["AUTO", "FORMATS", "Format", "Join", "Row", "chosen", "reference"]

#: stands for the format that a row's keys tell
AUTO = "auto"

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        native,
        easyedit,
        openai_dpo,
        openai_evals,
        trl,
        ms_swift,
        langfuse_corrections,
        langfuse_dataset,
        langsmith_feedback,
        langsmith_examples,
        argilla,
        label_studio,
    )
}

_SHOWN_KEYS = 12


def chosen(row: Row, name: str = AUTO) -> Format:
    """Return the format of that name, or for ``auto`` the one that the row's keys tell.

    Raises RowError ``row.ambiguous_format`` or ``row.unknown_format``, KeyError for an unknown
    name.
    """
    if name != AUTO:
        return FORMATS[name]
    fitting = [one for one in FORMATS.values() if one.fits(row)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(one.name for one in fitting)
        raise RowError(
            "row.ambiguous_format", f"the row fits {names}: name the source's format (--format)"
        )
    keys = ", ".join(key[:40] for key in list(row)[:_SHOWN_KEYS]) or "none"
    known = "; ".join(f"{one.name} ({one.keys})" for one in FORMATS.values())
    raise RowError("row.unknown_format", f"the keys {keys} fit no known format: {known}")


def reference(row: Row) -> str | None:
    """Return the name by which other rows of a log refer to this one; None if none can."""
    joins = (one.join for one in FORMATS.values() if one.join is not None)
    return next((name for join in joins if (name := join.name(row)) is not None), None)
