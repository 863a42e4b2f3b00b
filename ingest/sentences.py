"""Sentences of a text, and where in one a name may begin or end. Contains no language model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

#: a longer sentence is no evidence that a person reads at a glance; it is left out, not cut
MAX_SENTENCE_CHARS = 400

#: after its mark and closing quotes, before a space and what can begin a sentence
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])|(?<=[。！？])")
#: St., Dr., J.: the name goes on after the dot
_SHORT = re.compile(r"(?:^|[\s(\"'“‘])[^\W\d_a-z][^\W\d_]{0,2}\.$")
_HYPHENS = frozenset("-\u2010\u2011\u2012\u2013\u2212")
_IN_NUMBERS = frozenset(".,:/")
#: scripts that set no spaces between words, or endings right after a name
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def sentences(text: str, max_chars: int) -> tuple[str, ...]:
    """Return the sentences of a cleaned text, each once, up to ``max_chars`` of them together.

    A line's end is a sentence's end. An overlong sentence is left out.
    """
    found: dict[str, None] = {}
    left = max_chars
    for line in text.splitlines():
        for sentence in map(str.strip, _split(line)):
            if not sentence or len(sentence) > MAX_SENTENCE_CHARS or sentence in found:
                continue
            if len(sentence) > left:
                return tuple(found)
            found[sentence] = None
            left -= len(sentence)
    return tuple(found)


def _split(line: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(line):
        if not _SHORT.search(line, max(start, match.start() - 5), match.start()):
            yield line[start : match.end()]
            start = match.end()
    yield line[start:]


def is_cut(text: str, place: int) -> bool:
    """Tell whether a name may begin or end at a place: not amid a word, a number or Guinea-Bissau.

    ``place`` counts characters; the text's ends are cuts.
    """
    if place in (0, len(text)):
        return True
    before, after = text[place - 1], text[place]
    if unicodedata.category(after).startswith("M"):
        return False  # a mark belongs to its letter
    if _is_word(before) and _is_word(after):
        return _is_unspaced(before) or _is_unspaced(after)
    further_back, further_on = text[place - 2 : place - 1], text[place + 1 : place + 2]
    if after in _HYPHENS:
        return not (_is_word(before) and _is_word(further_on))
    if before in _HYPHENS:
        return not (_is_word(after) and (after.isdigit() or _is_word(further_back)))
    if after in _IN_NUMBERS and before.isdigit():
        return not further_on.isdigit()
    if before in _IN_NUMBERS and after.isdigit():
        return not further_back.isdigit()
    if unicodedata.category(before) == "Sc":
        return not after.isdigit()
    return not (after in "#%+" and _is_word(before))


def holds(sentence: str, name: str) -> bool:
    """Tell whether a sentence has a name, letter by letter, as whole words."""
    start = sentence.find(name) if name else -1
    while start >= 0:
        if is_cut(sentence, start) and is_cut(sentence, start + len(name)):
            return True
        start = sentence.find(name, start + 1)
    return False


def _is_word(char: str) -> bool:
    return char == "_" or char.isalnum() or unicodedata.category(char or " ").startswith("M")


def _is_unspaced(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_UNSPACED)
