"""A log's file and those it was rotated to: where it was left, and what goes on from there.

A file is told again by its first bytes, the bytes before the position and its inode: an inode
alone is given anew to other files, and a log that was written anew may begin as before.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ingest.errors import LogError
from ingest.lines import has_line, open_plain
from ingest.types import LogPosition

_FINGERPRINT_BYTES = 1024
#: what rotation puts into a name: a number, a date, or ``old``; never ``.bak``, ``.swp``, ``.gz``
_MARK = r"[._-](?P<mark>\d[\dTZ.:_+-]*|old)"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A file of a log and where to read on in it."""

    file: BinaryIO  #: the caller closes it
    path: Path
    offset: int
    is_finished: bool  #: the log goes on in another file, so its last line is complete as it is


def position(file: BinaryIO, offset: int) -> LogPosition:
    """Return what tells later where reading stopped."""
    return LogPosition(offset, _head(file, offset), _tail(file, offset), _inode(file))


def unread(
    path: Path, left: LogPosition | None, held: ExitStack
) -> tuple[tuple[Stretch, ...], bool]:
    """Return the files to read on in, oldest first, and whether the log is another than it was.

    `held` closes them. A file that the log was rotated to is read to its end before the next, and
    is left only when the next has a line: until then a writer may still have it open. What was
    truncated or replaced without a trace is read from its start; that is harmless, for a row's
    key is its content. While a file that may be the one is out of reach, nothing is passed over.
    Raises LogError.
    """
    live, missing = _live(path, held)
    if missing is not None and left is None:
        raise missing
    if live is not None and (left is None or _is_same(live, left)):
        return (Stretch(live, path, left.offset if left else 0, is_finished=False),), False
    assert left is not None, "a log is never another than none"
    try:
        files, offset = _since(path, live, left, held)
    except LogError as error:
        raise missing or error from None
    if missing is not None and not (len(files) > 1 or (files and has_line(files[0][0], offset))):
        raise missing
    return tuple(_stretches(files, offset)), True


def _live(path: Path, held: ExitStack) -> tuple[BinaryIO, None] | tuple[None, LogError]:
    """Open the log, or return why it is missing: it may have been rotated a moment ago."""
    try:
        return held.enter_context(open_plain(path)), None
    except LogError as error:
        if error.code != "log.missing":
            raise
        return None, error


def _since(
    path: Path, live: BinaryIO | None, left: LogPosition, held: ExitStack
) -> tuple[list[tuple[BinaryIO, Path]], int]:
    """Return the files from the position on, oldest first, and the offset in the first."""
    older, trouble = _rotated(path, live, held)
    at = _index([file for file, _ in older], left)
    if at is None and trouble is not None:
        raise trouble
    files = [] if at is None else older[at:]
    if live is not None and (not files or has_line(live)):
        files.append((live, path))
    return files, 0 if at is None else left.offset


def _stretches(files: list[tuple[BinaryIO, Path]], offset: int) -> Iterator[Stretch]:
    for number, (file, path) in enumerate(files):
        is_last = number == len(files) - 1
        yield Stretch(file, path, 0 if number else offset, is_finished=not is_last)


def _rotated(
    path: Path, live: BinaryIO | None, held: ExitStack
) -> tuple[list[tuple[BinaryIO, Path]], LogError | None]:
    """Open the files that the log was rotated to, oldest first; return why one can't be, too."""
    name, stem, suffix = map(re.escape, (path.name, path.stem, path.suffix))
    named = re.compile(f"{name}{_MARK}" + (f"|{stem}{_MARK.replace('mark', 'date')}{suffix}"))
    found, trouble = [], None
    for other in _beside(path):
        match = named.fullmatch(other.name)
        if match is None:
            continue
        try:
            file = held.enter_context(open_plain(other))
        except LogError as error:
            if error.code != "log.not_regular":  # a link or a pipe is no generation of the log
                trouble = error
            continue
        if live is None or _inode(file) != _inode(live):
            found.append((_age(file, match["mark"] or match["date"]), file, other))
    found.sort(key=lambda one: one[0])
    return [(file, other) for _, file, other in found], trouble


def _beside(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError as error:
        raise LogError(
            "log.unreadable",
            f"{path} was rotated, and {path.parent} cannot be listed ({error.strerror})",
            "let wised list the folder: what is left of the rotated log is read before the new one",
        ) from error


def _age(file: BinaryIO, mark: str) -> tuple[int, int, str]:
    """Return what sorts older files first; of two of one moment ``.2`` is older than ``.1``."""
    number = int(mark) if mark.isdecimal() and len(mark) < 5 else 0
    return os.fstat(file.fileno()).st_mtime_ns, -number, mark


def _index(files: list[BinaryIO], left: LogPosition) -> int | None:
    """Return which file the position is in: that very file, or else a copy of it."""
    same = [at for at, file in enumerate(files) if _reads_alike(file, left)]
    itself = [at for at in same if left.inode == _inode(files[at])]
    # Where nothing was read, any file reads alike.
    copies = same if left.offset else []
    return next(iter(reversed(itself or copies)), None)


def _is_same(file: BinaryIO, left: LogPosition) -> bool:
    return left.inode in (None, _inode(file)) and _reads_alike(file, left)


def _reads_alike(file: BinaryIO, left: LogPosition) -> bool:
    if os.fstat(file.fileno()).st_size < left.offset:
        return False
    if _head(file, left.offset) != left.fingerprint:
        return False
    if left.tail is not None:
        return _tail(file, left.offset) == left.tail
    # A file rewritten under the same head rarely breaks its lines at the same byte.
    file.seek(max(left.offset - 1, 0))
    return left.offset == 0 or file.read(1) == b"\n"


def _head(file: BinaryIO, offset: int) -> str:
    file.seek(0)
    return hashlib.sha256(file.read(min(offset, _FINGERPRINT_BYTES))).hexdigest()


def _tail(file: BinaryIO, offset: int) -> str:
    length = min(offset, _FINGERPRINT_BYTES)
    file.seek(offset - length)
    return hashlib.sha256(file.read(length)).hexdigest()


def _inode(file: BinaryIO) -> str:
    # Without the device, which is numbered anew at each mount.
    return str(os.fstat(file.fileno()).st_ino)
