"""Fuzz target: the functions that every text goes through, and those for addresses and patterns.

An input is a text, a newline, and another text to compare it with.
"""

import warnings

import promises

from ingest import html, mention, objects, patterns, phrasing, strict_json, text, times, urls
from ingest.dates import plain_dates
from ingest.errors import FetchError
from ingest.types import Relation

_LONGEST = 300  #: what a fact's object has at most
_OTHERS = {"single_valued": True, "prompts": (), "held_out": ()}
_PATTERNS = [one for found in promises.extractor()._patterns.values() for one in found]


def check(data):
    """Put a text through every function and assert what is promised of each."""
    one, _, other = data.decode("utf-8", "surrogateescape").partition("\n")
    _cleaned(one)
    _folded(one)
    _html(one)
    _address(_whole(one), _whole(other))
    _moment(one)
    _pattern(one)
    _compared(one[:_LONGEST], other[:_LONGEST])
    _json(data)


def _cleaned(given):
    for clean in (text.tidy, text.clean):
        assert promises.is_plain(clean(given)), ascii(clean(given))
        assert clean(clean(given)) == clean(given)
    lines = text.clean_lines(given)
    assert all(line and promises.is_plain(line) for line in lines.split("\n") if lines)
    assert text.clean_lines(lines) == lines


def _folded(given):
    folded = text.fold(given)
    assert text.fold(folded) == folded
    assert promises.is_plain(folded), ascii(folded)
    assert text.fold(text.tidy(given)) == folded
    assert text.name_key(text.name_key(given)) == text.name_key(given)
    # Keys are made of what anybody may write.
    assert promises.is_digest(text.fact_key(given, given, given))


def _html(given):
    silent = given.replace("<", "")
    assert html.to_text(f"<script>{silent}</script>") == ""
    assert promises.is_plain(text.clean(html.to_text(given)))
    html.linked_data(f'{given}<script type="application/ld+json">{given}')


def _whole(given):
    """Return a text without half surrogate pairs, which no header and no file can hold."""
    return given.encode(errors="replace").decode()


def _address(given, base):
    urls.absolute(given, base)
    for url in (f"https://user:hunter2@{given}", f"https://a.example/?key=hunter2&{given}"):
        assert "hunter2" not in urls.redact(url), url
    for use in (urls.checked, lambda url: urls.redirected("https://u:p@a.example/", url)):
        try:
            use(given)
        except FetchError as why:
            promises.refusal(why, "fetch.")


def _moment(given):
    if (found := times.moment(given)) is not None:
        credible = times.credible(found, promises.NOW)
        assert credible is None or credible == found


def _pattern(given):
    if "(?P<" not in given:  # it can be no pattern of a fact, and compiling is slow
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an operator may write what Python advises against
        try:
            patterns.compiled(Relation("r", patterns=(given,), **_OTHERS))
        except ValueError as why:
            assert "relation r" in str(why)


def _compared(one, other):
    assert objects.same_object(one, other) == objects.same_object(other, one)
    assert objects.same_object(one, one) == bool(text.fold(plain_dates(one)))
    assert objects.ask_alike(one, one)
    assert mention.mentions(one, other) in (True, False)
    assert promises.is_plain(phrasing.core(one))
    for found in _PATTERNS:
        found.search(one)


def _json(data):
    try:
        strict_json.decode(data)
    except strict_json.NotStrict as why:
        assert why.kind in ("bad_encoding", "bad_json", "duplicate_key", "not_a_number")
        assert len(why.message) <= 300
