"""Lines of a correction log to entries and facts. Contains no file access."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest import formats, strict_json
from ingest.errors import RowError
from ingest.extract import Extractor
from ingest.formats import AUTO, Format
from ingest.strict_json import NotStrict
from ingest.text import clean, clean_lines
from ingest.times import credible
from ingest.types import Entry, Item

_MAX_LINK_CHARS = 1024
#: what to do about a log that is one JSON array, as many tools export
ARRAY_HINT = "a log has one JSON object a line; jq -c '.[]' FILE writes an array so"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row whose format is known."""

    raw: str  #: the line
    row: dict[str, Any]
    format: Format
    key: str  #: sha256 hex of the row's one spelling

    @property
    def name(self) -> str | None:
        """What other rows call it; None for a row that states a correction itself."""
        return self.format.join.name(self.row) if self.format.join else None

    @property
    def wanted(self) -> str | None:
        """What it calls the row that it needs; None when it needs none."""
        return self.format.join.wanted(self.row) if self.format.join else None


def _has_nul(value: object) -> bool:
    """Tell whether a NUL character stands in a text anywhere in a decoded value."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_has_nul, (*value, *value.values())))
    return isinstance(value, list) and any(map(_has_nul, value))


def decode(line: bytes) -> dict[str, Any]:
    """Return the JSON object of one line; raise RowError for anything less than strict JSON."""
    if b"\0" in line:
        raise RowError("row.nul", "a NUL byte in the line")
    try:
        row = strict_json.decode(line.decode())
    except UnicodeDecodeError as error:
        raise RowError("row.bad_encoding", f"byte {error.start} is not UTF-8") from error
    except NotStrict as why:
        what = (_array(line) if why.kind == "bad_json" else None) or why.message
        raise RowError(f"row.{why.kind}", what) from why
    if _has_nul(row):
        raise RowError("row.nul", "a NUL character in a text")
    if not isinstance(row, dict):
        what = _array(line) or f"the line is a {type(row).__name__}, not an object"
        raise RowError("row.not_an_object", what)
    return row


def _array(line: bytes) -> str | None:
    return f"the line begins a JSON array: {ARRAY_HINT}" if is_array(line) else None


def is_array(text: bytes) -> bool:
    """Tell whether a line, or the head of one, is or begins a JSON array."""
    return text.lstrip().startswith(b"[")


def canonical(row: dict[str, Any]) -> bytes:
    """Return the one spelling of a row; raise RowError for text or numbers that have none."""
    try:
        return json.dumps(
            row, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        ).encode()
    except UnicodeEncodeError as error:
        raise RowError("row.surrogate", "half of a surrogate pair in a text") from error
    except ValueError as error:  # 1e999 is valid JSON and infinite
        raise RowError("row.not_a_number", "a number is out of range") from error


def _text_of(row: dict[str, Any], *names: str) -> str:
    values = (row.get(name) for name in names)
    return next((clean_lines(value) for value in values if isinstance(value, str)), "")


def _when(row: dict[str, Any], now: datetime) -> datetime | None:
    """Return the row's ``ts`` or ``date`` (ISO 8601; UTC when it names no zone)."""
    value = row.get("ts", row.get("date"))
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None:
            return None
        return credible(moment if moment.tzinfo else moment.replace(tzinfo=UTC), now)
    except (ValueError, OverflowError):
        return None


def _link(row: dict[str, Any]) -> str | None:
    link = clean(_text_of(row, "source_url"))
    is_web = link.lower().startswith(("http://", "https://"))
    return link if is_web and len(link) <= _MAX_LINK_CHARS else None


def parse(line: bytes, name: str = AUTO) -> Parsed:
    """Return one line as a row of the named format, or of the one its keys tell; raise RowError."""
    row = decode(line)
    key = hashlib.sha256(canonical(row)).hexdigest()
    return Parsed(line.decode(), row, formats.chosen(row, name), key)


def item(parsed: Parsed, related: Parsed | None, extractor: Extractor, now: datetime) -> Item:
    """Return a row's entry and its fact; raise RowError.

    `related` is the row that it refers to, if the log has it: it lends what it knows and is part
    of the evidence.
    """
    row, raw = parsed.row, parsed.raw
    if related is not None and parsed.format.join is not None:
        lent = {key: related.row[key] for key in parsed.format.join.lends if key in related.row}
        row, raw = lent | row, f"{raw}\n{related.raw}"
    read = parsed.format.read(row)
    candidate = extractor.from_row(read)
    about = {**row, **read}
    entry = Entry(
        key=parsed.key,
        content_hash=parsed.key,
        title=clean(candidate.quote),
        text=_text_of(about, "comment", "note"),
        link=_link(about),
        published=_when(about, now),
        raw=raw,
    )
    return Item(entry, (candidate,))
