"""What `ingest` promises of whatever it hands on, as the fuzz targets assert it.

Written from the documentation of the values, and not with the code that makes them.
"""

import json
import tomllib
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingest.errors import RowError
from ingest.extract import Extractor
from ingest.types import ASKED, Relation

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_CONFIG = Path(__file__).resolve().parents[2] / "config.toml"
#: that a terminal or a reader would obey and not see: bidi controls, zero-width characters, tags
_HIDDEN = frozenset(
    [
        *(0x00AD, 0x061C, 0x180E, 0xFEFF),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE0200),
    ]
)


def extractor():
    """Return an extractor of the default configuration's relations."""
    tables = tomllib.loads(_CONFIG.read_text("utf-8"))["relations"]
    return Extractor(
        {
            name: Relation(
                name=name,
                single_valued=table["single_valued"],
                prompts=tuple(table["prompts"]),
                held_out=tuple(table["held_out"]),
                patterns=tuple(table["patterns"]),
            )
            for name, table in tables.items()
        }
    )


def is_plain(text):
    """Tell whether a text is one line that shows all it has."""
    shown = all(unicodedata.category(c) not in ("Cc", "Cs", "Co", "Zl", "Zp") for c in text)
    return shown and _HIDDEN.isdisjoint(map(ord, text)) and text == " ".join(text.split())


def is_digest(text):
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def refusal(error, *kinds):
    """An error names its kind by its code, and both can be stored and shown."""
    assert error.code.startswith(kinds), error.code
    assert error.code.replace("_", "").replace(".", "").isalpha(), error.code
    assert 0 < len(error.message.encode()) <= 8192, len(error.message)


def dead_letter(letter, *kinds):
    assert letter.code.startswith(kinds), letter.code
    assert is_plain(letter.location) and len(letter.location) <= 200, letter.location
    assert 0 < len(letter.message.encode()) <= 8192
    assert len(letter.raw.encode()) <= 4096


def entry(one):
    assert is_digest(one.key) and is_digest(one.content_hash)
    assert is_plain(one.title), ascii(one.title)
    assert all(line and is_plain(line) for line in one.text.split("\n") if one.text), ascii(one)
    if one.link is not None:
        assert is_plain(one.link), ascii(one.link)
        assert one.link.lower().startswith(("http://", "https://")), ascii(one.link)
        assert len(one.link.encode()) <= 4096
    if one.published is not None:
        assert one.published.tzinfo is UTC, one.published
        assert datetime(1990, 1, 1, tzinfo=UTC) <= one.published <= NOW + timedelta(hours=24)
    one.raw.encode()


def feed_entry(one):
    entry(one)
    assert len(one.text.encode()) <= 64 * 1024
    assert isinstance(json.loads(one.raw), dict)
    if one.payload is not None:
        assert 0 <= len(one.payload) <= 100
        parts = [(s.subject, s.relation, s.object, s.old or "") for s in one.payload]
        assert all(map(is_plain, sum(parts, ()))), ascii(parts)
        assert sum(len(part.encode()) for part in sum(parts, ())) <= 64 * 1024


def candidate(one):
    """Its parts are short, plain and said; the subject of a bare prompt is that prompt."""
    is_bare = one.relation == ASKED
    assert 0 < len(one.subject) <= (1000 if is_bare else 200), len(one.subject)
    assert 0 < len(one.object) <= 300, len(one.object)
    assert one.old is None or 0 < len(one.old) <= 300
    assert one.prompts
    prompts = (*one.prompts, *one.held_out)
    assert all(0 < len(prompt) <= 1300 for prompt in prompts), prompts
    parts = (one.subject, one.object, one.old or "", *prompts)
    assert all(map(is_plain, parts)), ascii(one)
    one.quote.encode()


def stated(found, one):
    """Every structured fact of an entry becomes a candidate or is refused."""
    for fact in one.payload or ():
        try:
            candidate(found.from_stated(fact, "quote"))
        except RowError as why:
            refusal(why, "row.")
