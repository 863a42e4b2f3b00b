"""Our own rows: ``{prompt, right}`` and ``{subject, relation, object}``."""

from __future__ import annotations

from ingest.formats.format import Format, Row, has

_is_correction, _is_fact = has("prompt", "right"), has("subject", "relation", "object")


def _fits(row: Row) -> bool:
    return _is_correction(row) or _is_fact(row)


def _read(row: Row) -> Row:
    return row


FORMAT = Format(
    name="native",
    title="wised",
    keys="prompt, right; or subject, relation, object",
    fits=_fits,
    read=_read,
)
