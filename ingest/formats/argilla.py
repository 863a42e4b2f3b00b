"""Records of Argilla 2.x, nested (``to_json``) or flattened (``to_list(flatten=True)``).

What people submitted is right, what was suggested to them is wrong. Drafts and discarded
responses say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingest.errors import RowError
from ingest.formats.format import Format, Row, has
from ingest.formats.parts import (
    ANSWER_KEYS,
    agreed,
    answer_if_any,
    correction,
    listing,
    mapping,
    only,
    question,
    required,
)

_RESPONSES, _STATUS, _SUGGESTION = ".responses", ".responses.status", ".suggestion"
_is_nested = has("fields", "responses")


def _is_flat(row: Row) -> bool:
    return any(f"{key.removesuffix(_RESPONSES)}{_STATUS}" in row for key in row if _is_list(key))


def _is_list(key: str) -> bool:
    return key.endswith(_RESPONSES)


def _fits(row: Row) -> bool:
    return _is_nested(row) or _is_flat(row)


def _read(row: Row) -> Row:
    return _read_flat(row) if _is_flat(row) else _read_nested(row)


def _read_nested(row: Row) -> Row:
    prompt = question("fields", mapping("fields", required(row, "fields")))
    given = mapping("responses", required(row, "responses"))
    if row.get("status") != "completed":
        # A nested export says only of the whole record whether its responses are final.
        raise RowError(
            "row.not_completed",
            f"the record's status is {str(row.get('status'))[:40]}, not completed",
        )
    answers = {name: list(_nested(name, responses)) for name, responses in given.items()}
    name, right = _answered(answers)
    suggestions = row.get("suggestions")
    suggested = suggestions.get(name) if isinstance(suggestions, Mapping) else None
    wrong = suggested.get("value") if isinstance(suggested, Mapping) else None
    return correction(prompt, right, answer_if_any(wrong), ts=row.get("updated_at"))


def _nested(name: str, responses: object) -> Iterator[Any]:
    for one in listing(f"responses.{name}", responses):
        yield required(mapping(f"responses.{name}", one), "value")


def _read_flat(row: Row) -> Row:
    names = [key.removesuffix(_RESPONSES) for key in row if _is_list(key)]
    questions = tuple(f"{name}." for name in names)
    fields = {
        key: value
        for key, value in row.items()
        if key not in ("id", "status", "_server_id") and not key.startswith(questions)
    }
    prompt = question("the record", fields)
    name, right = _answered({name: list(_submitted(row, name)) for name in names})
    return correction(prompt, right, answer_if_any(row.get(name + _SUGGESTION)))


def _submitted(row: Row, name: str) -> Iterator[Any]:
    values = listing(name + _RESPONSES, row.get(name + _RESPONSES) or [])
    states = listing(name + _STATUS, row.get(name + _STATUS) or [])
    if len(values) != len(states):
        raise RowError("row.bad_shape", f"{name} has {len(values)} responses, {len(states)} states")
    yield from (value for value, state in zip(values, states, strict=True) if state == "submitted")


def _answered(answers: Mapping[str, list[Any]]) -> tuple[str, str]:
    """Return the question that was answered by a text, and the answer. Raises RowError."""
    texts = {
        name: [value for value in values if isinstance(value, str) and value.strip()]
        for name, values in answers.items()
    }
    first = {name: values[0] for name, values in texts.items() if values}
    if not first:
        given = any(answers.values())
        raise RowError(
            "row.not_text" if given else "row.no_answer",
            "no response is a text" if given else "nobody has submitted a response",
        )
    name = only("responses", first, ANSWER_KEYS)
    return name, agreed(name, texts[name])


FORMAT = Format(
    name="argilla",
    title="Argilla 2.x records",
    keys="fields, responses; or flattened QUESTION.responses, QUESTION.responses.status",
    fits=_fits,
    read=_read,
)
