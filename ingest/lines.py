"""Complete lines of a plain file. Contains no rows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ingest.errors import LogError

#: longer lines are skipped, and never held in memory
MAX_LINE_BYTES = 1024 * 1024
#: what is kept of a line that is too long, or that cannot be used
HEAD_BYTES = 4096
_SKIP_BYTES = 64 * 1024

_OPEN_ERRORS = {
    errno.ENOENT: ("log.missing", "does not exist"),
    errno.ELOOP: ("log.not_regular", "is a symbolic link"),
    errno.ENXIO: ("log.not_regular", "is a socket or a device"),
    errno.EISDIR: ("log.not_regular", "is a directory"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file."""

    start: int  #: offset of its first byte
    end: int  #: offset just after its newline
    data: bytes  #: without the newline; only its head when overlong
    is_overlong: bool


@contextmanager
def wrapped(path: Path) -> Iterator[None]:
    """Wrap what the system says of a file in the block: a disk that fails, a mount that is gone.

    Raises LogError.
    """
    try:
        yield
    except OSError as error:
        raise LogError(
            "log.unreadable",
            f"{path} cannot be read ({error.strerror or error})",
            "see to the disk or the mount that it lies on",
        ) from error


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file without following a link or waiting for a pipe's writer.

    Raises LogError.
    """
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


def complete(file: BinaryIO, offset: int, *, with_rest: bool = False) -> Iterator[Line]:
    """Yield the lines from an offset on that have their newline.

    `with_rest`: the file is finished, so what follows the last newline is a line too.
    """
    file.seek(offset)
    while data := file.readline(MAX_LINE_BYTES + 1):
        is_ended = data.endswith(b"\n")
        is_overlong = not is_ended and len(data) > MAX_LINE_BYTES
        if is_overlong:
            data = data[:HEAD_BYTES]
            is_ended = _skip_line(file)
        if not is_ended and not with_rest:
            return
        yield Line(offset, file.tell(), data.rstrip(b"\r\n"), is_overlong)
        offset = file.tell()


def has_line(file: BinaryIO, offset: int = 0) -> bool:
    """Tell whether a line is complete from an offset on."""
    return next(complete(file, offset), None) is not None


def _skip_line(file: BinaryIO) -> bool:
    """Read on to just after the next newline; return whether there is one."""
    while part := file.readline(_SKIP_BYTES):
        if part.endswith(b"\n"):
            return True
    return False
