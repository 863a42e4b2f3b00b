"""Text for display, text for comparison, and the keys made of it. Contains no I/O."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata

from ingest.lookalikes import LATIN_LOOK

#: raised whenever `fold` or `name_key` give anything else than before: keys are then made anew
FOLDING = 2

#: invisible without being format characters: joiner, Hangul fillers, blank Braille cell
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
#: format characters that are seen: Arabic and Kaithi number signs
_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u08e2\U000110bd")
#: punctuation that carries meaning in a name: C#, 10%
_MEANINGFUL = frozenset("#%")

_PLAIN = str.maketrans(
    {
        "\u02bc": "'",
        "\u2212": "-",
        "\u2010": "-",
        "\u2011": "-",
        "\u2013": "-",
        "\u2014": "-",
        "&": " and ",
        # Latin letters with a stroke or a ligature have no decomposition.
        "\u00f8": "o",
        "\u0111": "d",
        "\u0142": "l",
        "\u0127": "h",
        "\u00e6": "ae",
        "\u0153": "oe",
        "\u00f0": "d",
        "\u00fe": "th",
        "\u0259": "e",
    }
)

_MINUS = re.compile(r"(?<!\S)-(?=\d)")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
#: stand-ins while punctuation is removed; private use characters never reach them from `_shown`
_KEPT_MINUS, _KEPT_POINT = "\ue000", "\ue001"


def _shown(char: str) -> str:
    if char.isspace():
        return " "
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Co") or char in _INVISIBLE:
        return ""
    if category == "Cf" and char not in _VISIBLE_FORMATS:
        return ""
    is_variation_selector = "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    return "" if is_variation_selector else char


def tidy(text: str) -> str:
    """Return the text in NFC on one line, without control and invisible characters."""
    if not text.isascii() or not text.isprintable():
        # Dropping a joiner can bring a letter and its accent together: compose last.
        text = unicodedata.normalize("NFC", "".join(map(_shown, text)))
    return " ".join(text.split())


def clean(text: str) -> str:
    """Return a value for display: tidy, without the commas and semicolons around it."""
    return tidy(text).strip(" ,;")


def clean_lines(text: str) -> str:
    """Clean each line by itself and drop the empty ones."""
    return "\n".join(filter(None, map(clean, text.splitlines())))


def _spaced(char: str) -> str:
    """Set a superscript or a fraction apart, which NFKC would glue to a number: 10² is not 102."""
    return f" {char} " if unicodedata.category(char) == "No" else char


def _letters(text: str) -> str:
    """Reduce letters to their Latin look: no accents, no case, no look-alikes."""
    if text.isascii():
        return text.casefold().translate(_PLAIN)
    decomposed = unicodedata.normalize("NFKD", "".join(map(_spaced, text)))
    # Only the general diacritics: in many scripts a combining mark is a vowel.
    bare = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f")
    small = bare.casefold().translate(LATIN_LOOK).translate(_PLAIN)
    return unicodedata.normalize("NFKC", small)


def _gap(char: str) -> bool:
    return unicodedata.category(char).startswith("P") and char not in _MEANINGFUL


_ASCII_GAPS = {code: " " for code in range(128) if _gap(chr(code))}


def _without_punctuation(text: str) -> str:
    if text.isascii():
        return text.translate(_ASCII_GAPS)
    return "".join(" " if _gap(char) else char for char in text)


def _fold_once(text: str) -> str:
    text = _letters(tidy(text))
    text = _POINT.sub(_KEPT_POINT, _THOUSANDS.sub("", _MINUS.sub(_KEPT_MINUS, text)))
    text = _without_punctuation(text)
    text = text.replace(_KEPT_MINUS, "-").replace(_KEPT_POINT, ".")
    return " ".join(text.split())


def fold(text: str) -> str:
    """Return the comparison key of a text: what looks and reads alike folds alike.

    Case, accents, punctuation, typographic quotes and Latin look-alikes go; digits, signs of
    numbers, decimal points and symbols stay. Folding twice changes nothing.
    """
    if (once := _fold_once(text)) == text:
        return once
    # One pass can uncover work for the next: a dropped mark makes a decimal point of a dot.
    return fold(once)


def digest(value: object) -> str:
    """Return the sha256 hex of a value's canonical JSON, which no two values share."""
    canonical = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def name_key(text: str) -> str:
    """Return the comparison key of a name: folded, no article before it, St. written out."""
    words = fold(text).split()
    while len(words) > 1 and words[0] == "the":
        words = words[1:]
    return " ".join(["saint", *words[1:]] if len(words) > 1 and words[0] == "st" else words)


def slot_key(subject: str, relation: str) -> str:
    """Return the sha256 hex that names a slot, whatever the spelling of its subject."""
    return digest([name_key(subject), relation])


def fact_key(subject: str, relation: str, object: str) -> str:
    """Return the sha256 hex that names a fact, whatever the spelling of its parts."""
    return digest([name_key(subject), relation, fold(object)])
