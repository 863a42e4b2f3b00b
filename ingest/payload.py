"""Structured facts that an entry carries, in any of three ways, to one form. Contains no I/O.

- ``_wised`` in an item of a JSON Feed: ``{"facts": [{"subject", "relation", "object", "old"?}]}``
- one ``facts`` element of NAMESPACE in an item of RSS or Atom; its text is the same list as JSON
- schema.org JSON-LD in the item's content (`ingest.json_ld`)

The first two go before the third. What is not of the form is refused whole; whether a relation
is known is not asked here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ingest import json_ld, strict_json
from ingest.errors import PayloadError
from ingest.strict_json import NotStrict
from ingest.text import tidy
from ingest.types import Stated

#: of the element in RSS and Atom. It is an identifier, nothing is fetched from it
NAMESPACE = "https://wised.dev/ns/1"
EXTRACTOR = "payload/1"
#: what an honest entry stays under
MAX_FACTS = 100
MAX_BYTES = 64 * 1024

_FORM = 'facts are a list of {"subject": "...", "relation": "...", "object": "..."}'


@dataclass(frozen=True, slots=True)
class Carried:
    """What a format's reader found of an entry's payload, as it was found."""

    extension: object = None  #: the value of ``_wised``
    element: str | None = None  #: the text of the ``facts`` element
    unreadable: str | None = None  #: why there is an element, but not its text
    linked: tuple[str, ...] = ()  #: texts that may be JSON-LD


def read(carried: Carried) -> tuple[Stated, ...] | None:
    """Return the facts of an entry's payload, tidied; None when it carries none.

    Raises PayloadError for a payload that is not of the form or over a limit.
    """
    stated = _own(carried) if _has_own(carried) else _linked(carried.linked)
    if stated is None:
        return None
    if len(stated) > MAX_FACTS:
        raise PayloadError("payload.too_many_facts", f"{len(stated)} facts, over {MAX_FACTS}")
    if sum(len(quote(one).encode()) for one in stated) > MAX_BYTES:
        raise PayloadError("payload.too_long", f"the facts are over {MAX_BYTES} bytes")
    return tuple(stated)


def quote(one: Stated) -> str:
    """Return a fact as the JSON that would state it: the evidence."""
    named = {"subject": one.subject, "relation": one.relation, "object": one.object}
    return json.dumps(named | ({} if one.old is None else {"old": one.old}), ensure_ascii=False)


def _has_own(carried: Carried) -> bool:
    return any(v is not None for v in (carried.extension, carried.element, carried.unreadable))


def _own(carried: Carried) -> list[Stated]:
    if carried.unreadable is not None:
        raise PayloadError("payload.unreadable", carried.unreadable)
    if carried.element is not None:
        return _facts(_decoded(carried.element))
    if not isinstance(carried.extension, dict) or "facts" not in carried.extension:
        raise PayloadError("payload.bad_shape", "_wised is not an object with facts")
    return _facts(carried.extension["facts"])


def _decoded(text: str) -> object:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise PayloadError("payload.too_long", f"the payload is over {MAX_BYTES} bytes")
    try:
        return strict_json.decode(text)
    except NotStrict as why:
        raise PayloadError(f"payload.{why.kind}", why.message) from why


def _facts(value: object) -> list[Stated]:
    if not isinstance(value, list):
        raise PayloadError("payload.bad_shape", f"{type(value).__name__} for facts; {_FORM}")
    return [_fact(one, number) for number, one in enumerate(value, start=1)]


def _fact(value: object, number: int) -> Stated:
    if not isinstance(value, dict):
        what = f"fact {number} is {type(value).__name__}; {_FORM}"
        raise PayloadError("payload.bad_shape", what)
    old = value.get("old")
    return Stated(
        subject=_string(value.get("subject"), "subject", number),
        relation=_string(value.get("relation"), "relation", number),
        object=_string(value.get("object"), "object", number),
        old=None if old is None else _string(old, "old value", number),
        extractor=EXTRACTOR,
    )


def _string(value: object, name: str, number: int) -> str:
    if value is None:
        raise PayloadError("payload.bad_shape", f"fact {number} has no {name}; {_FORM}")
    if not isinstance(value, str):
        what = f"the {name} of fact {number} is {type(value).__name__}, not text"
        raise PayloadError("payload.bad_shape", what)
    return tidy(value)


def _linked(texts: Sequence[str]) -> list[Stated] | None:
    found = [stated for text in texts if (stated := json_ld.facts(text)) is not None]
    # A DataFeed that states no fact describes something else: the entry's text is asked then.
    return [one for stated in found for one in stated] or None
