"""Fuzz target: rows of correction logs, of each format by name and told by their keys.

An input is the name of a format (any other word: ``auto``) and a newline, then rows. A row that
refers to another gets it when it is among them.
"""

import json

import promises

from ingest import formats, rows
from ingest.errors import RowError

_EXTRACTOR = promises.extractor()
_MAX_ROWS = 8


def _parsed(line, name):
    try:
        return rows.parse(line, name)
    except RowError as why:
        promises.refusal(why, "row.")
        return None


def _respelled(row):
    """Return a row's line with its keys the other way round, spaced and in ASCII."""
    return json.dumps(dict(reversed(row.items())), indent=1).replace("\n", " ").encode()


def check(data):
    """Read the rows of one log and assert what is promised of the outcome."""
    first, _, rest = data.partition(b"\n")
    name = first.decode("latin-1").strip()
    name = name if name in formats.FORMATS else formats.AUTO
    lines = rest.split(b"\n")[:_MAX_ROWS]
    found = [one for line in lines if (one := _parsed(line, name)) is not None]
    named = {one.name: one for one in found if one.name is not None}
    for one in found:
        assert promises.is_digest(one.key)
        assert rows.parse(_respelled(one.row), name).key == one.key
        try:
            item = rows.item(one, named.get(one.wanted), _EXTRACTOR, promises.NOW)
        except RowError as why:
            promises.refusal(why, "row.")
            continue
        promises.entry(item.entry)
        assert len(item.candidates) == 1
        promises.candidate(item.candidates[0])
