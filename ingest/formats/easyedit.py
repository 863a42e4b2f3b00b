"""Edits as EasyEdit reads them: ``{prompt, target_new, ground_truth, subject, rephrase_prompt}``.

Its probes (``locality``, ``portability``) are left out: they are about other facts.
"""

from __future__ import annotations

from typing import Any

from ingest.formats.format import Format, Row, has
from ingest.formats.parts import answer_if_any, correction, required, text


def _read(row: Row) -> Row:
    # ground_truth is the old answer in some of its data sets and the true one in others;
    # `correction` takes it as wrong only where it differs.
    old = _first(row.get("ground_truth"))
    rephrases = row.get("rephrase_prompt") or []
    return correction(
        text("prompt", required(row, "prompt")),
        text("target_new", required(row, "target_new")),
        answer_if_any(old),
        rephrases=rephrases if isinstance(rephrases, list) else [rephrases],
        subject=row.get("subject"),
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


FORMAT = Format(
    name="easyedit",
    title="EasyEdit data sets",
    keys="prompt, target_new",
    fits=has("prompt", "target_new"),
    read=_read,
)
