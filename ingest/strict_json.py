"""JSON as the standard has it: what two readers could read differently is refused. No I/O."""

from __future__ import annotations

import json
from typing import Any, NoReturn

#: what people and programs write stays far below; the parser's own limit is the stack's
MAX_DEPTH = 64


class NotStrict(Exception):
    """Why a text is not strict JSON."""

    def __init__(self, kind: str, message: str) -> None:
        """Take the last word of a stable error code, and a sentence."""
        super().__init__(message)
        self.kind = kind
        self.message = message


def _not_a_number(name: str) -> NoReturn:
    raise NotStrict("not_a_number", f"{name} is not a number that JSON knows")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Which of two values was meant, nobody can tell.
        raise NotStrict("duplicate_key", "a key occurs twice in one object")
    return found


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise NotStrict("bad_json", f"nested deeper than {MAX_DEPTH}")


def decode(data: bytes | str) -> Any:
    """Return the value of a JSON text; bytes are UTF-8, a byte order mark before it is let pass.

    Raises NotStrict: ``bad_encoding``, ``bad_json``, ``duplicate_key``, ``not_a_number``.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_not_a_number, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise NotStrict("bad_encoding", f"byte {error.start} is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise NotStrict("bad_json", f"not JSON: {error}"[:200]) from error
    _refuse_depth(value)
    return value
