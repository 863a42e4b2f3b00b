"""Small feed documents in each format, for tests. Contains no expectations."""

import json
from datetime import UTC, datetime

from ingest import feed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WISED = 'xmlns:wised="https://wised.dev/ns/1"'


def rss(*items, head=""):
    body = "".join(f"<item>{item}</item>" for item in items)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<rss version="2.0" {WISED}><channel>'
        f"<title>t</title>{body}</channel></rss>"
    ).encode()


def atom(*entries):
    body = "".join(f"<entry>{entry}</entry>" for entry in entries)
    return (
        f'<feed xmlns="http://www.w3.org/2005/Atom" {WISED}><title>t</title>{body}</feed>'
    ).encode()


def json_feed(*items, version="https://jsonfeed.org/version/1.1"):
    return json.dumps({"version": version, "title": "t", "items": items}).encode()


def entries(document, content_type="application/xml"):
    return feed.parse(document, content_type, NOW).entries


def only(document):
    (entry,) = entries(document)
    return entry


def keys(*items):
    return [entry.key for entry in entries(rss(*items))]


def codes(document):
    return [letter.code for letter in feed.parse(document, "application/xml", NOW).dead]
