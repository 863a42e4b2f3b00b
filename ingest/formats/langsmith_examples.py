"""Examples of LangSmith data sets: ``{inputs, outputs}``; they hold no wrong answer."""

from __future__ import annotations

from ingest.formats.format import Format, Row, has
from ingest.formats.parts import answer, correction, question, required

_has_both = has("inputs", "outputs")


def _fits(row: Row) -> bool:
    # A run has inputs and outputs too: what a model said, not what it should say. So has
    # feedback that was joined with its run.
    return _has_both(row) and "run_type" not in row and "run_id" not in row


def _read(row: Row) -> Row:
    return correction(
        question("inputs", required(row, "inputs")),
        answer("outputs", required(row, "outputs")),
        ts=row.get("modified_at") or row.get("created_at"),
    )


FORMAT = Format(
    name="langsmith-examples",
    title="LangSmith examples",
    keys="inputs, outputs, without run_type and run_id",
    fits=_fits,
    read=_read,
)
