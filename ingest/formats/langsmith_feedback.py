"""Feedback of LangSmith that corrects an output, and the runs that it corrects."""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats.format import Format, Join, Row, has
from ingest.formats.parts import answer, answer_if_any, correction, question, required

_is_feedback = has("run_id", "key", "correction")
_is_run = has("id", "run_type", "inputs")
#: a correction with these keys alone is of an evaluator's score, not of an answer
_OF_SCORES = {"score", "value", "comment", "explanation"}


def _fits(row: Row) -> bool:
    return _is_feedback(row) or _is_run(row)


def _name(row: Row) -> str | None:
    return f"run {row['id']}" if _is_run(row) else None


def _wanted(row: Row) -> str | None:
    return None if "inputs" in row or not row.get("run_id") else f"run {row['run_id']}"


def _read(row: Row) -> Row:
    given = required(row, "correction")
    if given is None:
        raise RowError("row.no_correction", "the feedback corrects nothing")
    if isinstance(given, dict) and given and set(given) <= _OF_SCORES:
        raise RowError("row.no_correction", "the feedback corrects a score and not an answer")
    right = answer("correction", given)
    if "inputs" not in row:
        raise RowError("row.not_joined", _unjoined(row.get("run_id")))
    return correction(
        question("inputs", row["inputs"]),
        right,
        answer_if_any(row.get("outputs")),
        ts=row.get("modified_at") or row.get("created_at"),
    )


def _unjoined(run: object) -> str:
    if not run:
        return "the feedback names no run, so nobody knows what was asked"
    return f"run {str(run)[:80]} is not in this log, so nobody knows what was asked: write it first"


FORMAT = Format(
    name="langsmith-feedback",
    title="LangSmith feedback",
    keys="run_id, key, correction (and the rows of their runs)",
    fits=_fits,
    read=_read,
    join=Join(name=_name, wanted=_wanted, lends=("inputs", "outputs")),
)
