"""Tailing a correction log: JSON lines, read by offset and never past the last newline."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ingest import rows
from ingest.errors import LogError, RowError
from ingest.extract import Extractor
from ingest.types import DeadLetter, Item, LogPosition, Poll

#: longer lines are skipped, and never held in memory
MAX_LINE_BYTES = 1024 * 1024
#: what one poll reads at most, give or take a line: 500 rows of the longest kind would be too much
_POLL_BYTES = 16 * 1024 * 1024
_FINGERPRINT_BYTES = 1024
_RAW_BYTES = 4096
_SKIP_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"

_OPEN_ERRORS = {
    errno.ENOENT: ("log.missing", "does not exist"),
    errno.ELOOP: ("log.not_regular", "is a symbolic link"),
    errno.ENXIO: ("log.not_regular", "is a socket or a device"),
    errno.EISDIR: ("log.not_regular", "is a directory"),
}


@dataclass(frozen=True, slots=True)
class _Line:
    start: int  #: offset of its first byte
    end: int  #: offset just after its newline
    data: bytes  #: without the newline; only its head when overlong
    is_overlong: bool


@dataclass(slots=True)
class _Reading:
    """What one poll has found so far."""

    items: list[Item] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items) + len(self.dead)


def _open(path: Path) -> BinaryIO:
    """Open a regular file without following a link or waiting for a pipe's writer."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        code, what = _OPEN_ERRORS.get(
            error.errno or 0, ("log.unreadable", f"cannot be read ({error.strerror})")
        )
        raise LogError(
            code, f"{path} {what}", "the log is a plain file that we may read"
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise LogError(
            "log.not_regular", f"{path} is not a regular file", "name the file itself, not a pipe"
        )
    return os.fdopen(handle, "rb")


def _fingerprint(file: BinaryIO, offset: int) -> str:
    file.seek(0)
    return hashlib.sha256(file.read(min(offset, _FINGERPRINT_BYTES))).hexdigest()


def _is_same_file(file: BinaryIO, position: LogPosition) -> bool:
    if os.fstat(file.fileno()).st_size < position.offset:
        return False
    if _fingerprint(file, position.offset) != position.fingerprint:
        return False
    # A file rewritten under the same head rarely breaks its lines at the same byte.
    file.seek(max(position.offset - 1, 0))
    return position.offset == 0 or file.read(1) == b"\n"


def _skip_line(file: BinaryIO) -> bool:
    """Read on to just after the next newline; return whether there is one."""
    while part := file.readline(_SKIP_BYTES):
        if part.endswith(b"\n"):
            return True
    return False


def _lines(file: BinaryIO, offset: int) -> Iterator[_Line]:
    """Yield the complete lines from an offset on."""
    file.seek(offset)
    while data := file.readline(MAX_LINE_BYTES + 1):
        is_overlong = not data.endswith(b"\n") and len(data) > MAX_LINE_BYTES
        if is_overlong:
            data = data[:_RAW_BYTES]
            if not _skip_line(file):
                return
        elif not data.endswith(b"\n"):
            return
        yield _Line(offset, file.tell(), data.rstrip(b"\r\n"), is_overlong)
        offset = file.tell()


def _use(line: _Line, extractor: Extractor, now: datetime, reading: _Reading) -> None:
    data = line.data.removeprefix(_BOM) if line.start == 0 else line.data
    if not data.strip():
        return
    try:
        if line.is_overlong:
            raise RowError("row.too_long", f"the line is over {MAX_LINE_BYTES} bytes")
        reading.items.append(rows.item(data, extractor, now))
    except RowError as why:
        raw = data[:_RAW_BYTES].decode(errors="replace").encode()[:_RAW_BYTES]
        reading.dead.append(
            DeadLetter(f"offset {line.start}", why.code, why.message, raw.decode(errors="ignore"))
        )


def _start(file: BinaryIO, position: LogPosition | None) -> tuple[int, tuple[str, ...]]:
    if position is None:
        return 0, ()
    # Reading again is harmless: an entry's key is its content.
    return (position.offset, ()) if _is_same_file(file, position) else (0, ("log.rotated",))


def read(
    path: Path | str,
    position: LogPosition | None,
    extractor: Extractor,
    max_rows: int = 500,
    now: datetime | None = None,
) -> Poll:
    """Return the next rows of a correction log; a row that cannot be used is a dead letter.

    A file that shrank or whose head changed is read from its start, with the note
    ``log.rotated``. `now` (aware; default: the clock) judges the dates of rows. Raises LogError.
    """
    now = now or datetime.now(UTC)
    reading, is_full = _Reading(), False
    with _open(Path(path)) as file:
        begin, notes = _start(file, position)
        end = begin
        for line in _lines(file, begin):
            _use(line, extractor, now, reading)
            end = line.end
            is_full = len(reading) >= max_rows or end - begin >= _POLL_BYTES
            if is_full:
                break
        return Poll(
            items=tuple(reading.items),
            dead=tuple(reading.dead),
            position=LogPosition(end, _fingerprint(file, end)),
            more=is_full and os.fstat(file.fileno()).st_size > end,
            notes=notes,
        )
