"""What the documents of ``--json`` are made of: their keys, and which kinds of value stand there.

``golden/shapes.json`` has them for every command on the state of `everything`. Scripts rest on it:
a key that goes or changes its kind needs another ``schema_version``. It is written anew by
``python tests/daemon/cli_shapes.py``; read the difference before it is committed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cli_commands import CHANGES, READS, AnsweringWorker, call, copied, everything
from cli_world import wised

from daemon import child
from daemon.state import State

FILE = Path(__file__).resolve().parent / "golden" / "shapes.json"
#: they have no --json
TEXT_ONLY = {("completion",), ("review",)}
TELLING = sorted({*READS, *CHANGES} - TEXT_ONLY)
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def shape(value: object) -> object:
    """The tree of a document's keys; a list has one element, which is any of its elements."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [either(*map(shape, value))] if value else []
    return KINDS[type(value)]


def either(*shapes: object) -> object:
    """One shape for all; ``key?`` is one that not all have."""
    if all(isinstance(one, dict) for one in shapes):
        keys = dict.fromkeys(key for one in shapes for key in one)
        return {
            key if all(key in one for one in shapes) else f"{key}?": either(
                *(one[key] for one in shapes if key in one)
            )
            for key in keys
        }
    if all(isinstance(one, list) for one in shapes):
        elements = [element for one in shapes for element in one]
        return [either(*elements)] if elements else []
    words = {dict: "object", list: "array"}
    return " | ".join(sorted({words.get(type(one), str(one)) for one in shapes}))


def told(base: State, words: tuple[str, ...], folder: Path, *also: str) -> dict[str, object]:
    """The document of a command on a copy of ``base`` below an empty folder."""
    folder.mkdir(exist_ok=True)
    document: dict[str, object] = wised(
        copied(base, folder), *call(words, folder), "--json", *also
    ).json
    return document


if __name__ == "__main__":
    child.Worker = AnsweringWorker
    with tempfile.TemporaryDirectory() as place:
        base = everything(Path(place))
        found = {
            " ".join(words): shape(told(base, words, Path(place) / str(number)))
            for number, words in enumerate(TELLING)
        }
    FILE.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
