"""Samples of OpenAI evals: ``{input, ideal}``; they hold no wrong answer."""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats.format import Format, Row, has
from ingest.formats.parts import correction, question, required, text


def _read(row: Row) -> Row:
    ideal = required(row, "ideal")
    if isinstance(ideal, list):
        # The first is the answer, the others are spellings that are accepted too.
        if not ideal:
            raise RowError("row.empty", "ideal is an empty list")
        ideal = ideal[0]
    return correction(question("input", required(row, "input")), text("ideal", ideal))


FORMAT = Format(
    name="openai-evals",
    title="OpenAI evals samples",
    keys="input, ideal",
    fits=has("input", "ideal"),
    read=_read,
)
