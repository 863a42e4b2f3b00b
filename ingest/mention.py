"""Whether a text names something, and not something else whose name holds the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ingest.objects import OFFICE_WORDS
from ingest.text import fold, name_key, tidy
from ingest.wording import ANYWHERE

_PIECE = re.compile(r"[^\s\-\u2010-\u2014/]+")
_OPENING = "(['\"\u2018\u201c"
_ENDING = (",", ";", ":", ".", "!", "?", ")", "]", '"', "\u201d")
#: small words within names: Republic of the Congo, Trinidad and Tobago
_JOINING = frozenset({"of", "the", "and", "de", "du", "da", "del", "la"})
_POSSESSIVE = "s"  #: folding makes a word of it: Chad's is chad s


@dataclass(frozen=True, slots=True)
class _Word:
    key: str  #: folded
    is_name: bool  #: written with a capital
    ends: bool  #: no name goes on after it


def _words(text: str) -> list[_Word]:
    found = []
    for piece in _PIECE.findall(tidy(text)):
        keys = fold(piece).split()
        # St. Lucia and J. Smith go on after the dot.
        is_short = piece.endswith(".") and all(len(key) == 1 or key == "st" for key in keys)
        ends = piece.endswith(_ENDING) and not is_short
        is_name = piece.lstrip(_OPENING)[:1].isupper()
        for place, key in enumerate(keys, 1):
            found.append(_Word(_saint(key), is_name, ends and place == len(keys)))
    return found


def _saint(key: str) -> str:
    return "saint" if key == "st" else key


def _goes_on(words: Iterable[_Word], is_lower: bool) -> bool:
    """Tell whether a name goes on with these words, which lie beside it, the nearest first.

    It does with a capital that is neither an office nor a question's own. A text that writes
    names small shows nothing, so there any word but the commonest counts.
    """
    for near, word in enumerate(words):
        if word.key == _POSSESSIVE:
            return False
        if word.key in _JOINING:
            continue
        if word.key in ANYWHERE or word.key in OFFICE_WORDS:
            return False
        return word.is_name or (is_lower and near == 0)
    return False


def _before(words: list[_Word], start: int) -> Iterable[_Word]:
    for word in reversed(words[:start]):
        if word.ends:
            return
        yield word


def _after(words: list[_Word], last: int) -> Iterable[_Word]:
    if not words[last].ends:
        for word in words[last + 1 :]:
            yield word
            if word.ends:
                return


def mentions(text: str, name: str) -> bool:
    """Tell whether a text has a name as a whole: Sudan, but not the Sudan of South Sudan.

    A longer name is known by its capitals, with small words between: Republic of the Congo. A
    name in capitals alone, such as US, is there only with a capital, for us is a word.
    """
    wanted = [_saint(key) for key in name_key(name).split()]
    words = _words(text)
    for start in range(len(words) - len(wanted) + 1 if wanted else 0):
        stop = start + len(wanted)
        if [word.key for word in words[start:stop]] != wanted:
            continue
        is_lower = not any(word.is_name for word in words[start:stop])
        if is_lower and name.isupper():
            continue
        before, after = _before(words, start), _after(words, stop - 1)
        if not _goes_on(before, is_lower) and not _goes_on(after, is_lower):
            return True
    return False
