"""Preferences as ms-swift reads them: a conversation and the answer that was rejected."""

from __future__ import annotations

from ingest.formats.format import Format, Row, has
from ingest.formats.parts import answer, listing, preference, question, required, text


def _read(row: Row) -> Row:
    said = listing("messages", required(row, "messages"))
    return preference(
        question("messages", said),
        answer("messages", said),
        text("rejected_response", required(row, "rejected_response")),
    )


FORMAT = Format(
    name="ms-swift",
    title="ms-swift preferences",
    keys="messages, rejected_response",
    fits=has("messages", "rejected_response"),
    read=_read,
)
