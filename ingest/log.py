"""Tailing a correction log: JSON lines, read by offset and never past the last newline."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ingest import formats, generations, related, rows
from ingest.errors import LogError, RowError
from ingest.extract import Extractor
from ingest.generations import Stretch
from ingest.lines import HEAD_BYTES, MAX_LINE_BYTES, Line, complete, wrapped
from ingest.rows import Parsed
from ingest.types import DeadLetter, Item, LogPosition, Poll

#: what one poll reads at most, give or take a line: 500 rows of the longest kind would be too much
_POLL_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Row:
    """A line that is to be an item or a dead letter."""

    location: str
    data: bytes
    parsed: Parsed | RowError


@dataclass(slots=True)
class _Reading:
    """What one poll has found so far, and what it may still read."""

    extractor: Extractor
    format: str
    now: datetime
    rows_left: int
    bytes_left: int
    items: list[Item] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.rows_left <= 0 or self.bytes_left <= 0

    def read(self, stretch: Stretch, where: str) -> int:
        """Read on in one file until the poll is full; return the offset that was reached."""
        found, end = [], stretch.offset
        for line in complete(stretch.file, stretch.offset, with_rest=stretch.is_finished):
            self.bytes_left -= line.end - end
            end = line.end
            if row := _row(line, where, self.format):
                found.append(row)
                self.rows_left -= 1
            if self.is_full:
                break
        wanted = {name for row in found if (name := _wanted(row)) is not None}
        lent = {}
        if wanted:
            lent = related.find(stretch.file, wanted, stretch.offset, end, self.format)
        for row in found:
            self._use(row, lent.get(_wanted(row) or ""))
        return end

    def _use(self, row: _Row, other: Parsed | None) -> None:
        try:
            if isinstance(row.parsed, RowError):
                raise row.parsed
            self.items.append(rows.item(row.parsed, other, self.extractor, self.now))
        except RowError as why:
            self.dead.append(_dead(row, why))


def read(
    path: Path | str,
    position: LogPosition | None,
    extractor: Extractor,
    max_rows: int = 500,
    now: datetime | None = None,
    format: str = formats.AUTO,
) -> Poll:
    """Return the next rows of a correction log; a row that cannot be used is a dead letter.

    `format` names the rows' format, or is ``auto``. `now` (aware; default: the clock) judges the
    dates of rows. A log that was rotated is read on in the file that it was rotated to, and then
    in the new one; one that was truncated or rewritten is read from its start. Both have the note
    ``log.rotated``. Raises LogError.
    """
    path = Path(path)
    if format != formats.AUTO and format not in formats.FORMATS:
        known = ", ".join(formats.FORMATS)
        raise LogError("log.unknown_format", f"{path}: no format {format!r}", f"one of {known}")
    reading = _Reading(extractor, format, now or datetime.now(UTC), max_rows, _POLL_BYTES)
    with wrapped(path), ExitStack() as held:
        stretches, is_other = generations.unread(path, position, held)
        for last in stretches:
            end = reading.read(last, "" if last.path == path else f"{last.path.name} ")
            if reading.is_full:
                break
        if end == 0:
            _refuse_array(last)
        size = os.fstat(last.file.fileno()).st_size
        return Poll(
            items=tuple(reading.items),
            dead=tuple(reading.dead),
            position=generations.position(last.file, end),
            more=reading.is_full and (size > end or last is not stretches[-1]),
            notes=("log.rotated",) if is_other else (),
        )


def _refuse_array(stretch: Stretch) -> None:
    """Refuse a log that is one array on a line without a newline, which would wait for ever."""
    stretch.file.seek(0)
    if rows.is_array(stretch.file.read(HEAD_BYTES).removeprefix(_BOM)):
        raise LogError("log.array", f"{stretch.path} is one JSON array", rows.ARRAY_HINT)


def _row(line: Line, where: str, format: str) -> _Row | None:
    """Return what a line says; None for a blank one, and for a row that is there for others."""
    data = line.data.removeprefix(_BOM) if line.start == 0 else line.data
    if not data.strip():
        return None
    parsed: Parsed | RowError
    try:
        if line.is_overlong:
            hint = f" ({rows.ARRAY_HINT})" if rows.is_array(data) else ""
            raise RowError("row.too_long", f"the line is over {MAX_LINE_BYTES} bytes{hint}")
        parsed = rows.parse(data, format)
        if parsed.name is not None:
            return None
    except RowError as why:
        parsed = why
    return _Row(f"{where}offset {line.start}", data, parsed)


def _wanted(row: _Row) -> str | None:
    return None if isinstance(row.parsed, RowError) else row.parsed.wanted


def _dead(row: _Row, why: RowError) -> DeadLetter:
    raw = row.data[:HEAD_BYTES].decode(errors="replace").encode()[:HEAD_BYTES]
    return DeadLetter(row.location, why.code, why.message, raw.decode(errors="ignore"))
