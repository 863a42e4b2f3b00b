"""Chat messages as the OpenAI and LangChain APIs write them. Contains no format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from ingest.errors import RowError

#: role by the names that APIs give it
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_MISSING = {"user": "row.no_user_message", "assistant": "row.no_answer"}


def is_message(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether a value is one message: an object with a role and a content."""
    return isinstance(value, Mapping) and "content" in _body(value) and _role(value) is not None


def are_parts(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a value is the content of one message in parts (texts, images)."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(p, Mapping) and "type" in p and not is_message(p) for p in value)
    )


def joined(name: str, parts: list[Any]) -> str:
    """Return the text of content parts; raise RowError ``row.not_text`` for an image or sound."""
    for part in parts:
        if not isinstance(part.get("text"), str):
            kind = str(part["type"])[:40]
            raise RowError("row.not_text", f"{name} has a part of type {kind!r}, not only text")
    return "".join(part["text"] for part in parts)


def last(name: str, messages: list[Any], role: str) -> object:
    """Return the content of the last user message, or of the last message if it is an answer.

    Raises RowError ``row.no_user_message``, ``row.no_answer``, and ``row.not_a_message`` for
    anything that is no message.
    """
    if len(messages) == 1 and isinstance(messages[0], list):
        messages = messages[0]  # LangChain: a batch of one conversation
    for message in messages:
        if not isinstance(message, Mapping) or _role(message) is None:
            raise RowError("row.not_a_message", f"{name} holds what has no role and content")
    # What an answer was preceded by does not matter; a question is followed by its answer.
    looked_at = messages if role == "user" else messages[-1:]
    found = [one for one in looked_at if _role(one) == role]
    if not found:
        roles = ", ".join(str(_role(one))[:20] for one in messages[-4:]) or "none"
        where = "" if role == "user" else " at its end"
        raise RowError(_MISSING[role], f"{name} has no {role} message{where} (roles: {roles})")
    return _body(found[-1]).get("content")


def _body(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where the content is: in LangChain's two serialised shapes one level down."""
    for inner in ("data", "kwargs"):
        if isinstance(message.get(inner), Mapping):
            body: Mapping[str, Any] = message[inner]
            return body
    return message


def _role(message: Mapping[str, Any]) -> str | None:
    """Return ``user`` or ``assistant``, another role as it is, None for what has none."""
    body = _body(message)
    for holder, key in ((message, "role"), (body, "type"), (message, "type")):
        value = holder.get(key)
        if isinstance(value, str) and (key == "role" or value in (*_ROLES, "system", "tool")):
            return _ROLES.get(value, value)
    return None
