"""What each record passes on its way into a log: secrets out, controls out, size bounded.

Contains no set-up and no files; the processors are structlog's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from daemon.log_events import LIBRARY
from daemon.render import safe_text
from daemon.secrets import HIDDEN, names_a_secret, without_secrets

MAX_FIELD_BYTES = 8192
MAX_FIELDS = 64
MAX_DEPTH = 4  #: of lists and tables in a field
#: keys that come first, in this order
FIRST = ("at", "level", "event")

Fields = dict[str, Any]


def bounded(text: str, limit: int = MAX_FIELD_BYTES) -> str:
    """Return a text cut to ``limit`` bytes of UTF-8; what was cut is said at its end."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return text
    note = f"... [{len(raw)} bytes]"
    return raw[: limit - len(note)].decode("utf-8", "ignore") + note


def _clean(text: str, *, multiline: bool = False) -> str:
    # Cut first: a pattern must not be run over a megabyte. The margin is for what grows.
    short = bounded(text, 2 * MAX_FIELD_BYTES)
    return bounded(safe_text(without_secrets(short), multiline=multiline))


def _value(value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_FIELDS]
        return {_name(k): _field(str(k), v, depth + 1) for k, v in pairs}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        return [_value(one, depth + 1) for one in list(value)[: MAX_FIELD_BYTES // 8]]
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return "..."
    return _clean(_text(value))


def _text(value: object) -> str:
    """Return any object as text: a log line must not fail for an odd one."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _name(key: object) -> str:
    return bounded(safe_text(without_secrets(str(key)[:256])), 256)


def _field(key: str, value: object, depth: int = 0) -> object:
    if isinstance(value, (str, bytes)) and names_a_secret(key):
        return HIDDEN
    if key == "exception":
        return _clean(str(value), multiline=True)
    found = _value(value, depth)
    if isinstance(found, (dict, list)) and depth == 0:
        text = json.dumps(found, ensure_ascii=False)
        return found if len(text.encode()) <= MAX_FIELD_BYTES else bounded(text)
    return found


def harmless(logger: object, method: str, fields: Any) -> Fields:
    """Hide secrets, make controls visible and bound the size, in every name and value."""
    kept = sorted(fields, key=lambda key: (key not in FIRST, str(key)))[:MAX_FIELDS]
    return {_name(key): _field(str(key), fields[key]) for key in kept}


def in_order(logger: object, method: str, fields: Any) -> Fields:
    """Put time, level and name first, then the rest by name."""
    first = {key: fields.pop(key) for key in FIRST if key in fields}
    return {**first, **{key: fields[key] for key in sorted(fields)}}


def of_a_library(logger: object, method: str, fields: Any) -> Any:
    """Turn a record of the standard library's logging: its text is a field, not a name."""
    record = fields["_record"]
    return {**fields, "event": LIBRARY, "logger": record.name, "text": fields["event"]}


def json_line(logger: object, method: str, fields: Any) -> str:
    """Return a record as one line of ASCII: no stored text can move a terminal that shows it."""
    return json.dumps(fields, ensure_ascii=True, default=str)


def readable(fields: Mapping[str, Any]) -> str:
    """Return a record for a person: ``time level event key=value``; not made safe."""
    start = [str(fields.get(key, "")) for key in FIRST]
    rest = [f"{key}={_shown(value)}" for key, value in fields.items() if key not in FIRST]
    return " ".join(filter(None, (*start, *rest)))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def readable_line(logger: object, method: str, fields: Any) -> str:
    """Return a record as a terminal may show it; further lines of a traceback are set in."""
    return safe_text(readable(fields), multiline=True).replace("\n", "\n    ")


Processor = Callable[[Any, str, Any], Any]
