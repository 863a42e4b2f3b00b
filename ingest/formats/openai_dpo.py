"""Preferences as OpenAI's fine-tuning reads them: one request, two outputs."""

from __future__ import annotations

from ingest.formats.format import Format, Row, has
from ingest.formats.parts import answer, listing, mapping, preference, question, required


def _read(row: Row) -> Row:
    request = mapping("input", required(row, "input"))
    asked = listing("input.messages", required(request, "messages"))
    return preference(
        question("input.messages", asked),
        answer("preferred_output", _messages(row, "preferred_output")),
        answer("non_preferred_output", _messages(row, "non_preferred_output")),
    )


def _messages(row: Row, key: str) -> object:
    return listing(key, required(row, key))


FORMAT = Format(
    name="openai-dpo",
    title="OpenAI preference (DPO) files",
    keys="input, preferred_output, non_preferred_output",
    fits=has("input", "preferred_output", "non_preferred_output"),
    read=_read,
)
