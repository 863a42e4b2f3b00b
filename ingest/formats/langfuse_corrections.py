"""Corrected outputs of Langfuse: scores, and the traces and observations that they correct.

A score names its trace or observation; what was asked stands only there.
"""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats.format import Format, Join, Row, has
from ingest.formats.langfuse import asked, either, payload
from ingest.formats.parts import answer, answer_if_any, correction, required

_is_trace = has("id", "timestamp", "input", "output", "metadata", "tags")
_is_span = has("id", "type", "input", "output")


def _is_observation(row: Row) -> bool:
    return (
        _is_span(row)
        and ("traceId" in row or "trace_id" in row)
        and ("startTime" in row or "start_time" in row)
    )


def _is_score(row: Row) -> bool:
    return has("name", "value")(row) and ("dataType" in row or "data_type" in row)


def _fits(row: Row) -> bool:
    return _is_score(row) or _is_trace(row) or _is_observation(row)


def _name(row: Row) -> str | None:
    if _is_score(row):
        return None
    if _is_observation(row):
        return f"observation {row['id']}"
    return f"trace {row['id']}" if _is_trace(row) else None


def _wanted(row: Row) -> str | None:
    return None if "input" in row else _target(row)


def _target(row: Row) -> str | None:
    """Return what a score is about; None for one of a whole session or of nothing."""
    subject = row.get("subject")  # the third version of the API nests it
    if isinstance(subject, dict) and subject.get("kind") in ("trace", "observation"):
        return f"{subject['kind']} {subject.get('id')}"
    for kind, camel, snake in (
        ("observation", "observationId", "observation_id"),
        ("trace", "traceId", "trace_id"),
    ):
        if given := either(row, camel, snake):
            return f"{kind} {given}"
    return None


def _read(row: Row) -> Row:
    kind = either(row, "dataType", "data_type")
    if kind != "CORRECTION":
        raise RowError(
            "row.no_correction",
            f"a score of type {str(kind)[:40]} corrects nothing: export dataType=CORRECTION",
        )
    right = answer("value", payload(required(row, "value")))
    if "input" not in row:
        raise RowError("row.not_joined", _unjoined(_target(row)))
    return correction(
        asked("input", row["input"]),
        right,
        answer_if_any(payload(row.get("output"))),
        ts=either(row, "updatedAt", "updated_at") or row.get("timestamp"),
    )


def _unjoined(target: str | None) -> str:
    if target is None:
        return "the score names no trace and no observation, so nobody knows what was asked"
    return f"{target[:80]} is not in this log, so nobody knows what was asked: write it there first"


FORMAT = Format(
    name="langfuse-corrections",
    title="Langfuse corrected outputs",
    keys="name, value, dataType (and the rows of their traces or observations)",
    fits=_fits,
    read=_read,
    join=Join(name=_name, wanted=_wanted, lends=("input", "output")),
)
