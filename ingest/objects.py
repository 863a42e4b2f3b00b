"""When two texts name the same thing: titles, numbers, negations."""

from __future__ import annotations

import re
import unicodedata

from ingest.dates import plain_dates
from ingest.text import fold

#: office words, folded, that a name means the same with or without. Words that change what is
#: said (elect, designate, former, deputy, vice, crown) are missing on purpose, and so are those
#: that are first names as well (baron, major, prince).
_TITLE_LINES = """
    acting | interim | caretaker | transitional | president | executive president | prime minister
    premier | first minister | chief minister | chancellor | federal chancellor | taoiseach
    king | queen | emperor | sultan | emir | amir | pope | grand duke
    governor | governor general | lieutenant governor | administrator | commissioner
    high commissioner | ambassador | charge d affaires | charge d affairs
    minister | minister of state | secretary general | chairman | chairwoman | speaker | mayor
    mr | mrs | ms | dr | sir | dame | lord | lady | prof | professor
"""
_TITLES = frozenset(tuple(title.split()) for title in re.split(r"[|\n]", _TITLE_LINES.strip()))
_LONGEST_TITLE = max(map(len, _TITLES))
_HONORIFICS = frozenset({"mr", "mrs", "ms", "dr", "sir", "dame", "prof", "professor"})
OFFICE_WORDS = frozenset(word for title in _TITLES for word in title)  #: prime, minister, king

_NEGATIONS = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|nobody|nothing)\b|n't\b"
)
_FIGURE = re.compile(r"(?:(?<!\S)[-\u2212])?\d+(?:[.,:/]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FIGURE_WORD = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|"
    r"forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|first|second|third|"
    r"fourth|fifth|sixth|seventh|eighth|ninth|tenth|half|quarter|double|january|february|march|"
    r"april|may|june|july|august|september|october|november|december|monday|tuesday|wednesday|"
    r"thursday|friday|saturday|sunday|yesterday|tomorrow|twenties|thirties|forties|fifties|sixties|"
    r"seventies|eighties|nineties|century|decade)\b"
)
#: words that make another question of one, as numbers and negations do: of another time, or of
#: who comes beside or after the one asked for
_TURNS = re.compile(
    r"\b(?:was|were|had|will|would|shall|ago|before|after|until|till|during|once|former|formerly|"
    r"previous|previously|preceding|earlier|later|recent|recently|ex|past|late|last|latest|next|"
    r"future|following|then|incoming|outgoing|predecessor|successor|elect|designate|designated|"
    r"nominee|nominated|appointed|candidate|deputy|vice|assistant|associate|shadow|honorary)\b"
)


def _western(char: str) -> str:
    return str(unicodedata.decimal(char)) if char.isdecimal() else char


def figures(text: str) -> tuple[str, ...]:
    """Return the numbers, number words and date words of a text, in order of their kind."""
    plain = "".join(map(_western, unicodedata.normalize("NFC", text))).casefold()
    found = _FIGURE.findall(_THOUSANDS.sub("", plain))
    numbers = [number.replace("\u2212", "-") for number in found]
    return (*numbers, *_FIGURE_WORD.findall(plain))


def negations(text: str) -> tuple[str, ...]:
    """Return the negating words of a text, in order."""
    plain = unicodedata.normalize("NFC", text).casefold().replace("\u2019", "'")
    return tuple(_NEGATIONS.findall(plain))


def turns(text: str) -> tuple[str, ...]:
    """Return the words that move a question to another time or person, in order."""
    return tuple(_TURNS.findall(fold(text)))


def agree(a: str, b: str) -> bool:
    """Tell whether two texts have the same numbers, dates and negations."""
    return figures(a) == figures(b) and negations(a) == negations(b)


def ask_alike(a: str, b: str) -> bool:
    """Tell whether two questions agree and are of the same time and person."""
    return agree(a, b) and turns(a) == turns(b)


def _is_titles(words: list[str]) -> bool:
    """Tell whether the words are office titles and nothing else."""
    if not words:
        return True
    return any(
        tuple(words[:length]) in _TITLES and _is_titles(words[length:])
        for length in range(1, min(_LONGEST_TITLE, len(words)) + 1)
    )


def _has_office(words: list[str]) -> bool:
    leading = (tuple(words[:length]) for length in range(1, _LONGEST_TITLE + 1))
    return words[0] not in _HONORIFICS and any(title in _TITLES for title in leading)


def _is_titled(longer: list[str], name: list[str]) -> bool:
    """Tell whether `longer` is `name`, which has no office of its own, with titles before it."""
    before = longer[: len(longer) - len(name)]
    return longer == [*before, *name] and _is_titles(before) and not _has_office(name)


def same_object(a: str, b: str) -> bool:
    """Tell whether two objects are the same.

    They are when they fold alike, or when one is the other with titles before it and the
    other has no office: "Mario Draghi" is "Prime Minister Mario Draghi", but "King X" is not
    "Sultan X". Full dates are the same in any form that can be read in one way only; other
    numbers, and negations, must agree as written.
    """
    a, b = plain_dates(a), plain_dates(b)
    if not agree(a, b):
        return False
    one, other = sorted((fold(a).split(), fold(b).split()), key=len)
    if not one:
        return False
    return one == other or _is_titled(other, one)
