"""Preferences as TRL and most data sets of the Hugging Face hub have them: chosen and rejected."""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats.format import Format, Row, has
from ingest.formats.parts import answer, preference, question, required


def _read(row: Row) -> Row:
    chosen, rejected = required(row, "chosen"), required(row, "rejected")
    return preference(_prompt(row, chosen), answer("chosen", chosen), answer("rejected", rejected))


def _prompt(row: Row, chosen: object) -> str:
    if "prompt" in row:
        return question("prompt", row["prompt"])
    if isinstance(chosen, list):  # implicit: each conversation begins with it
        return question("chosen", chosen)
    raise RowError("row.missing", "prompt is missing, and in a text it can't be told from the rest")


FORMAT = Format(
    name="trl",
    title="TRL and Hugging Face preferences",
    keys="chosen, rejected",
    fits=has("chosen", "rejected"),
    read=_read,
)
