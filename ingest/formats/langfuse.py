"""What Langfuse's API and its exports share. Contains no format."""

from __future__ import annotations

import json
from typing import Any

from ingest.formats.format import Row
from ingest.formats.parts import question


def either(row: Row, camel: str, snake: str) -> Any:
    """Return a value by the API's name of it, or else by the exports'; None when absent."""
    return row.get(camel, row.get(snake))


def payload(value: object) -> object:
    """Return an input or output as JSON: exports hold it as text, the API decoded."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def asked(name: str, value: object) -> str:
    """Return what was asked, also of a function traced by its arguments. Raises RowError."""
    value = payload(value)
    if isinstance(value, dict) and set(value) == {"args", "kwargs"}:
        args, kwargs = value["args"], value["kwargs"]
        if isinstance(args, list) and len(args) == 1 and not kwargs:
            return question(f"{name}.args", args[0])
        if not args:
            return question(f"{name}.kwargs", kwargs)
    return question(name, value)
