"""The parts that formats share: texts, answers, pairs. Contains no format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ingest.errors import RowError
from ingest.extract import MAX_OBJECT_CHARS
from ingest.formats import messages
from ingest.formats.format import Row
from ingest.text import clean, fold

#: keys under which tools keep what was asked, and what was or should have been answered
QUESTION_KEYS = ("question", "prompt", "input", "query", "instruction", "text", "messages")
ANSWER_KEYS = ("answer", "output", "response", "completion", "text", "correction", "messages")
_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def required(row: Row, key: str) -> Any:
    """Return the value of a key; raise RowError ``row.missing`` when there is none."""
    if key not in row:
        raise RowError("row.missing", f"{key} is missing")
    return row[key]


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Return the value if it is an object; raise RowError ``row.not_an_object``."""
    if not isinstance(value, Mapping):
        raise RowError("row.not_an_object", f"{name} is {_kind(value)}, not an object")
    return value


def listing(name: str, value: object) -> list[Any]:
    """Return the value if it is a list; raise RowError ``row.not_a_list``."""
    if not isinstance(value, list):
        raise RowError("row.not_a_list", f"{name} is {_kind(value)}, not a list")
    return value


def text(name: str, value: object) -> str:
    """Return a text that says something: a string, or a list of text parts.

    Raises RowError ``row.not_text`` or ``row.empty``.
    """
    if messages.are_parts(value):
        value = messages.joined(name, value)
    if value is None:
        raise RowError("row.empty", f"{name} is null")
    if not isinstance(value, str):
        raise RowError("row.not_text", f"{name} is {_kind(value)}, not text")
    if not clean(value):
        raise RowError("row.empty", f"{name} is empty")
    return value


def question(name: str, value: object) -> str:
    """Return what was asked: a text, the last user message of a list, or one of an object's keys.

    Raises RowError ``row.no_user_message``, ``row.ambiguous_field`` and as `text` does.
    """
    if isinstance(value, Mapping):
        key = only(name, value, QUESTION_KEYS)
        name, value = f"{name}.{key}", value[key]
    if isinstance(value, list) and not messages.are_parts(value):
        return text(f"the last user message of {name}", messages.last(name, value, "user"))
    return text(name, value)


def answer(name: str, value: object) -> str:
    """Return what was answered: a text, the last message of a list, or one of an object's keys.

    Raises RowError ``row.no_answer``, ``row.ambiguous_field`` and as `text` does.
    """
    if isinstance(value, Mapping) and not messages.is_message(value):
        key = only(name, value, ANSWER_KEYS)
        name, value = f"{name}.{key}", value[key]
    if messages.is_message(value):
        value = [value]
    if isinstance(value, list) and not messages.are_parts(value):
        return text(f"the last message of {name}", messages.last(name, value, "assistant"))
    return text(name, value)


def answer_if_any(value: object) -> str | None:
    """Return what a model answered before, or None where it can't be told.

    The wrong answer is only evidence: whatever shape a tool keeps it in, the right one counts.
    """
    try:
        return answer("the old answer", value)
    except RowError:
        return None


def only(name: str, value: Row, known: tuple[str, ...]) -> str:
    """Return the one key that holds what is meant: the only known one, or else the only text.

    Raises RowError ``row.ambiguous_field`` when there are several, ``row.empty`` when none.
    """
    held = [key for key in known if value.get(key) not in (None, "", [])]
    held = held or [key for key, one in value.items() if _says(one)]
    if not held:
        raise RowError("row.empty", f"{name} has no text; known keys are {', '.join(known)}")
    if len(held) > 1:
        keys = ", ".join(key[:40] for key in held[:10])
        raise RowError("row.ambiguous_field", f"{name} has {keys}: leave the one that is meant")
    return held[0]


def agreed(name: str, values: Iterable[str]) -> str:
    """Return what all people answered, as the last spelled it.

    Raises RowError ``row.disagreement``, and ``row.no_answer`` when nobody answered.
    """
    found = {_key(value): value for value in values}
    if not found:
        raise RowError("row.no_answer", f"nobody has answered {name}")
    if len(found) > 1:
        said = ", ".join(repr(value[:40]) for value in list(found.values())[:4])
        raise RowError("row.disagreement", f"people disagree on {name}: {said}")
    return next(iter(found.values()))


def correction(
    prompt: str,
    right: str,
    wrong: str | None = None,
    *,
    rephrases: list[str] | None = None,
    subject: object = None,
    ts: object = None,
) -> Row:
    """Return a correction as `Extractor.from_row` takes it.

    A wrong answer that is the right one is none, and one too long for a fact names no old value.
    """
    row: dict[str, Any] = {"prompt": prompt, "right": right}
    if wrong is not None and len(wrong) <= MAX_OBJECT_CHARS and not _is_same(right, wrong):
        row["wrong"] = wrong
    optional = {"rephrases": rephrases, "subject": subject, "ts": ts}
    return row | {key: value for key, value in optional.items() if value}


def preference(prompt: str, chosen: str, rejected: str) -> Row:
    """Return a preference as `correction` does.

    Raises RowError ``row.no_difference`` when one answer was preferred to itself.
    """
    if _is_same(chosen, rejected):
        raise RowError("row.no_difference", "the rejected answer is the preferred one")
    return correction(prompt, chosen, rejected)


def _says(value: object) -> bool:
    """Tell whether a value may be a question or an answer: a text, a message or several."""
    if isinstance(value, list):
        return bool(value) and all(map(messages.is_message, value))
    return messages.is_message(value) or (isinstance(value, str) and bool(clean(value)))


def _is_same(one: str, other: str) -> bool:
    return _key(one) == _key(other)


def _key(value: str) -> str:
    # Folding is slow, and no fact's object is that long.
    return fold(value) if len(value) <= MAX_OBJECT_CHARS else value


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")
