"""schema.org's DataFeed in JSON-LD: facts that an entry carries, or a feed of its own.

A fact is an ``additionalProperty`` of a DataFeedItem's ``item``::

    {"@context": "https://schema.org", "@type": "DataFeedItem",
     "item": {"@type": "Country", "name": "Italy", "additionalProperty":
              {"@type": "PropertyValue", "name": "head of government", "value": "Mario Draghi"}}}

Only JSON-LD's plain spelling is understood: schema.org as the context or its ``@vocab``, names
without prefixes. Everything else in it says nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ingest import strict_json
from ingest.errors import PayloadError
from ingest.strict_json import NotStrict
from ingest.text import tidy
from ingest.types import Stated

EXTRACTOR = "json-ld/1"


def facts(text: str) -> list[Stated] | None:
    """Return the facts of the DataFeedItems in a text; None when it is not a DataFeed at all.

    Raises PayloadError for a DataFeed that is not strict JSON, or whose facts lack their parts.
    """
    if "DataFeed" not in text:  # most JSON-LD in the world is something else, and often broken
        return None
    try:
        found = items(strict_json.decode(text))
    except NotStrict as why:
        raise PayloadError(f"payload.{why.kind}", why.message) from why
    if found is None:
        return None
    return [one for element in found for one in _of_item(element)]


def items(value: object) -> list[dict[str, Any]] | None:
    """Return the DataFeedItems of a decoded document; None when it is not a DataFeed."""
    found: list[dict[str, Any]] = []
    is_feed = False
    for node in _nodes(value):
        if _is_a(node, "DataFeed"):
            is_feed = True
            found += [one for one in _dicts(node.get("dataFeedElement")) if "item" in one]
        elif _is_a(node, "DataFeedItem"):
            is_feed = True
            found.append(node)
    return found if is_feed else None


def thing(element: dict[str, Any]) -> dict[str, Any]:
    """Return what a DataFeedItem is about, the first of several; empty when it says nothing."""
    return next(_dicts(element.get("item")), {})


def alone(element: dict[str, Any]) -> str:
    """Return a DataFeedItem as a JSON-LD text of its own."""
    own = {"@context": "https://schema.org", "@type": "DataFeedItem"}
    return json.dumps({**element, **own})


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-LD value, which may be one or a list."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield one


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    for node in _dicts(value):
        if _is_schema_org(node.get("@context")):
            yield node
            yield from _dicts(node.get("@graph"))


def _is_schema_org(context: object) -> bool:
    for one in context if isinstance(context, list) else [context]:
        address = one.get("@vocab") if isinstance(one, dict) else one
        if isinstance(address, str):
            bare = address.removeprefix("http://").removeprefix("https://")
            if bare.removeprefix("www.").rstrip("/") == "schema.org":
                return True
    return False


def _is_a(node: dict[str, Any], kind: str) -> bool:
    given = node.get("@type")
    return kind in given if isinstance(given, list) else kind == given


def _of_item(element: dict[str, Any]) -> Iterator[Stated]:
    is_withdrawn = element.get("dateDeleted") is not None
    for subject in _dicts(element.get("item")):
        for value in _dicts(subject.get("additionalProperty")):
            yield Stated(
                subject=_string(subject.get("name"), "the item's name"),
                relation=_string(value.get("name"), "a property's name"),
                object=_string(value.get("value"), "a property's value"),
                old=None,
                extractor=EXTRACTOR,
                is_withdrawn=is_withdrawn,
            )


def _string(value: object, what: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        # A fraction has many spellings, and the model is to be taught the source's.
        kind = "missing" if value is None else type(value).__name__
        raise PayloadError("payload.bad_shape", f"{what} is {kind}, not text")
    return tidy(value)
