"""Which relation a question asks for, by the words that it shares with the configured ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.phrasing import FIELD, core
from ingest.text import fold, name_key

_COMMON = """
    a an the this that these those of in on at to for from by with as and or s it its is are be
    been being has have having do does did who whom whose what which when where how why there
    here now today nowadays currently presently
"""
#: English words that any question may have; folded, so an apostrophe has become a gap
ANYWHERE = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class _Bag:
    """The words of a question, without its subject."""

    stems: frozenset[str]
    #: the stems, each again with its side of the subject, neighbours in their order, and the small
    #: word before the subject: who sells to Chad, and whom Chad sells to, are two questions
    marks: frozenset[str]

    def likeness(self, other: _Bag) -> float:
        """Return the share of marks in common (Jaccard)."""
        return len(self.marks & other.marks) / max(1, len(self.marks | other.marks))


class Wordings:
    """The words of each relation's phrasings, to tell what an unknown question is most like."""

    def __init__(self, templates: Mapping[str, Iterable[str]]) -> None:
        """Take the templates of each relation, each with one ``{subject}`` field."""
        self._bags = {
            name: [_bag(*_halves(core(template))) for template in of_one]
            for name, of_one in templates.items()
        }
        self._words = {
            name: frozenset().union(*(bag.stems for bag in bags))
            for name, bags in self._bags.items()
        }

    def may_ask(self, prompt: str, subject: str, relation: str) -> bool:
        """Tell whether a question about a subject asks for a relation, as far as words can tell.

        It does when one of the relation's phrasings is more like it than any of another's, and
        either all words of a phrasing are there, or no word that only others have: "chief of
        the government" is like "chief of state", but asks for the head of government. Without
        any relation there is nothing to tell by, and it may ask for any.
        """
        asked = _bag(*_around(core(prompt), subject))
        likeness = {
            name: max((asked.likeness(bag) for bag in bags), default=0.0)
            for name, bags in self._bags.items()
        }
        own = likeness.pop(relation, 0.0)
        if not self._bags or own <= max(likeness.values(), default=0.0):
            return not self._bags
        is_whole = any(bag.stems <= asked.stems for bag in self._bags[relation] if bag.stems)
        return is_whole or not self._foreign(asked.stems, relation)

    def _foreign(self, stems: frozenset[str], relation: str) -> frozenset[str]:
        """Return the stems that other relations' phrasings have, and this one's don't."""
        others = (words for name, words in self._words.items() if name != relation)
        return stems.intersection(frozenset().union(*others)) - self._words[relation]


def _stem(word: str) -> str:
    """Cut a word's ending, roughly: exports, exporter and exported are one, and city is cities."""
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed", "er", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] + "i" if word.endswith("y") else word


def _bag(before: Sequence[str], after: Sequence[str]) -> _Bag:
    sides = [
        (_stem(word), side)
        for side, words in (("<", before), (">", after))
        for word in words
        if word not in ANYWHERE
    ]
    stems = frozenset(stem for stem, _ in sides)
    small = {f"{word} {FIELD}" for word in before[-1:] if word in ANYWHERE}
    pairs = {f"{one} {next}" for (one, side), (next, other) in pairwise(sides) if side == other}
    return _Bag(stems, stems | {side + stem for stem, side in sides} | pairs | small)


def _halves(template: str) -> tuple[list[str], list[str]]:
    before, _, after = template.partition(FIELD)
    return fold(before).split(), fold(after).split()


def _around(prompt: str, subject: str) -> tuple[list[str], list[str]]:
    """Return the words of a prompt before and after its subject; all before, where it has none."""
    words, wanted = fold(prompt).split(), name_key(subject).split()
    for start in range(len(words) - len(wanted) + 1):
        stop = start + len(wanted)
        if name_key(" ".join(words[start:stop])).split() == wanted:
            return words[:start], words[stop:]
    return words, []
