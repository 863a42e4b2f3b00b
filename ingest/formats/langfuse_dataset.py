"""Items of Langfuse data sets: ``{input, expectedOutput}``; they hold no wrong answer."""

from __future__ import annotations

from ingest.errors import RowError
from ingest.formats.format import Format, Row, has
from ingest.formats.langfuse import asked, payload
from ingest.formats.parts import answer, correction, required


def _read(row: Row) -> Row:
    if row.get("status") == "ARCHIVED":
        raise RowError("row.archived", "the item is archived")
    return correction(
        asked("input", required(row, "input")),
        answer("expectedOutput", payload(required(row, "expectedOutput"))),
        ts=row.get("updatedAt") or row.get("createdAt"),
    )


FORMAT = Format(
    name="langfuse-dataset",
    title="Langfuse data set items",
    keys="input, expectedOutput",
    fits=has("input", "expectedOutput"),
    read=_read,
)
