"""The rows of a log that other rows refer to: a correction's trace or run."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import BinaryIO

from ingest import rows
from ingest.errors import RowError
from ingest.lines import complete
from ingest.rows import Parsed

#: how far before and after the rows of a poll is searched, so that a poll stays short
REACH_BYTES = 256 * 1024 * 1024
_IDS = re.compile(rb'"id"\s*:\s*"((?:[^"\\]|\\.)*)"')


def find(file: BinaryIO, wanted: Set[str], begin: int, end: int, format: str) -> dict[str, Parsed]:
    """Return the wanted rows that are near the bytes from `begin` to `end`, by their names.

    Of several with one name the last is returned: tools write a trace again when it ends.
    """
    ids = {name.partition(" ")[2].encode() for name in wanted}
    found: dict[str, Parsed] = {}
    for line in complete(file, max(0, begin - REACH_BYTES)):
        if line.start > end + REACH_BYTES:
            break
        # Decoding is slow, and few lines have an id that is asked for.
        if any(one in ids or b"\\" in one for one in _IDS.findall(line.data)):
            parsed = _parsed(line.data, format)
            if parsed is not None and (name := parsed.name) in wanted:
                assert name is not None, "names are texts"
                found[name] = parsed
    return found


def _parsed(line: bytes, format: str) -> Parsed | None:
    try:
        return rows.parse(line, format)
    except RowError:  # it is a dead letter where it is read itself
        return None
