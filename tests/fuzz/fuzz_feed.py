"""Fuzz target: feed documents of every format, from bytes to entries and facts.

An input is a document; one that begins with ``content-type: VALUE`` and a newline was served so.
"""

import json
import zlib

import feedparser  # noqa: F401 - the reader loads it late, when the fuzzer no longer watches
import promises

from ingest import feed, isolated
from ingest.errors import FeedError

_EXTRACTOR = promises.extractor()
_HEADER = b"content-type:"


def _split(data):
    if not data.startswith(_HEADER):
        return data, None
    line, _, body = data.partition(b"\n")
    return body, line.removeprefix(_HEADER).decode("latin-1").strip()


def check(data):
    """Parse one document and assert what is promised of the outcome."""
    body, content_type = _split(data)
    try:
        parsed = feed.parse(body, content_type, promises.NOW, "http://a.example/feed")
    except FeedError as why:
        promises.refusal(why, "feed.")
        return
    assert len(parsed.entries) + len(parsed.dead) <= 501
    assert len({one.key for one in parsed.entries}) == len(parsed.entries)
    for one in parsed.entries:
        promises.feed_entry(one)
        promises.stated(_EXTRACTOR, one)
        for candidate in _EXTRACTOR.from_entry(one):
            promises.candidate(candidate)
    for letter in parsed.dead:
        promises.dead_letter(letter, "entry.", "payload.", "feed.too_many_entries")
    # What crosses from the parser's process to the daemon arrives as it was.
    assert isolated._unpacked(json.loads(json.dumps(isolated._packed(parsed)))) == parsed
    if zlib.crc32(data) % 4 == 0:  # it doubles the time
        assert parsed == feed.parse(body, content_type, promises.NOW, "http://a.example/feed")
