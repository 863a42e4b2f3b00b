"""Small files that others read while they are replaced. Contains no wised rules."""

from __future__ import annotations

import os
from pathlib import Path


def tidy(path: Path) -> None:
    """Remove what writers of a file left that were killed; only where no other one writes it."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def replace(path: Path, text: str, mode: int = 0o600) -> None:
    """Put ``text`` in the place of a file at once: a reader sees the old or the new, whole.

    Not synced: what is lost with the power is written again within seconds. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, mode)
            file.write(text)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
