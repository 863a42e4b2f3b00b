"""JSON Feed 1.0 and 1.1, and schema.org DataFeeds in JSON: decoded documents to entries."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ingest import json_ld, strict_json
from ingest.entries import Draft, Parsed, collect, not_a_feed, not_strict
from ingest.errors import FeedError
from ingest.html import linked_data, to_text
from ingest.payload import Carried
from ingest.strict_json import NotStrict
from ingest.times import moment
from ingest.urls import absolute

_VERSION = re.compile(r"https?://(?:www\.)?jsonfeed\.org/version/1(?:\.\d+)?/?", re.IGNORECASE)


def begins_like_json(body: bytes) -> bool:
    """Tell whether a document can only be JSON: XML begins with another character."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def looks_like_one(head: bytes) -> bool:
    """Tell by the first bytes of a JSON text whether it is a feed."""
    return b"jsonfeed.org/version/" in head or (b"schema.org" in head and b"DataFeed" in head)


def parse(body: bytes, now: datetime, base: str | None = None) -> Parsed:
    """Return the entries of a JSON Feed or a DataFeed, in its order.

    `base` is the address that relative links start from. A bad item becomes a dead letter. Raises
    FeedError for what is not strict JSON or neither kind of feed.
    """
    try:
        document = strict_json.decode(body)
    except NotStrict as why:
        raise not_strict(why) from why
    assert isinstance(document, dict), "it begins with a brace"
    version = document.get("version")
    if isinstance(version, str) and _VERSION.fullmatch(version.strip()):
        return _json_feed(document, now, base)
    if (elements := json_ld.items(document)) is not None:
        return collect(map(_from_element, elements), len(elements), now)
    raise not_a_feed("JSON, but its version is no address of jsonfeed.org")


def _json_feed(document: dict[str, Any], now: datetime, base: str | None) -> Parsed:
    items = document.get("items")
    if not isinstance(items, list):
        raise FeedError("feed.bad_shape", "a JSON Feed needs a list of items")
    return collect((_from_item(item, base) for item in items), len(items), now)


def _string(item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _id(item: dict[str, Any]) -> str:
    """Return an item's id as text: version 1.0 let it be a number."""
    value = item.get("id")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _string(item, "id")
    # An integer is finite, but may be too large for the question.
    return str(value) if isinstance(value, int) or math.isfinite(value) else ""


def _dates(item: dict[str, Any], *keys: str) -> tuple[datetime, ...]:
    found = (moment(item.get(key)) for key in keys)
    return tuple(one for one in found if one is not None)


def _text(item: dict[str, Any]) -> str:
    plain = _string(item, "content_text")
    return plain or to_text(_string(item, "content_html")) or _string(item, "summary")


def _candidates(item: dict[str, Any]) -> Iterator[str]:
    """Yield what may be JSON-LD: scripts in the HTML, or a text that is nothing else."""
    yield from linked_data(_string(item, "content_html"))
    plain = _string(item, "content_text").strip()
    if plain.startswith("{"):
        yield plain


def _from_item(item: object, base: str | None) -> Draft:
    if not isinstance(item, dict):  # it has nothing to be known by: a dead letter
        return Draft("", "", "", "", ())
    return Draft(
        guid=_id(item),
        title=_string(item, "title"),
        text=_text(item),
        link=absolute(_string(item, "url"), base),
        dates=_dates(item, "date_published", "date_modified"),
        carried=Carried(extension=item.get("_wised"), linked=tuple(_candidates(item))),
        said={key: _string(item, key) for key in ("date_published", "date_modified")},
    )


def _from_element(element: dict[str, Any]) -> Draft:
    """Return a DataFeedItem's draft, named by its own or its item's address or by the name."""
    thing = json_ld.thing(element)
    names = (_string(element, "@id"), *(_string(thing, key) for key in ("@id", "url", "name")))
    return Draft(
        guid=next(filter(str.strip, names), ""),
        title=_string(thing, "name"),
        text="",
        link=_string(thing, "url"),
        dates=_dates(element, "dateCreated", "dateModified"),
        carried=Carried(linked=(json_ld.alone(element),)),
    )
