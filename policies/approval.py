"""Whether a new fact needs a person."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from policies.trust import Tier

#: the longest real object of the demo's data has 57 characters; a longer one is a text, not a name
MAX_OBJECT_CHARS = 120

_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]*://|\bwww\.|\b(?:mailto|javascript|data):\S|\b\w+\.[a-z]+/", re.I
)
_ALIKE_SCRIPTS = """
    LATIN CYRILLIC GREEK ARMENIAN CHEROKEE COPTIC LISU CANADIAN DESERET OSAGE TIFINAGH WARANG
"""
#: scripts with letters that pass for one another, by the first word of their letters' names
_ALIKE = frozenset(_ALIKE_SCRIPTS.split())
_WORD = re.compile(r"\w\w+")


class State(StrEnum):
    """Where a new fact goes."""

    APPROVED = "approved"
    PENDING = "pending"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Decision:
    """A state and why; the reason goes into the audit log."""

    state: State
    reason: str


def _scripts(word: str) -> frozenset[str]:
    """Return the look-alike scripts of a word's letters."""
    names = (unicodedata.name(char, "") for char in word if char.isalpha())
    return _ALIKE.intersection(name.split(" ")[0] for name in names)


def _mixed(text: str) -> str | None:
    """Return why a text is suspect that has letters of several scripts in one word.

    Between words a name may well change its script; and a lone letter (alpha, pi) is a symbol.
    """
    for word in _WORD.findall(text):
        if len(scripts := _scripts(word)) > 1:
            return f"mixes {' and '.join(sorted(scripts)).lower()} letters in one word: {word!r}"
    return None


def passes_for(subject: str, held: str, *, is_believed: bool) -> str | None:
    """Return why a subject is suspect that reads like a held one; None when it is not.

    For two that are one name but for look-alike letters, accents and case: those of honest
    sources are of one script. A held one that nobody has believed must not hold up the Latin one
    that it may be a disguise of.
    """
    new, old = _scripts(subject), _scripts(held)
    if not new or new == old or (new == {"LATIN"} and not is_believed):
        return None
    scripts = " and ".join(sorted(new)).lower()
    return f"the subject reads like {held!r}, but is written in {scripts} letters"


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def risks(subject: str, object: str) -> tuple[str, ...]:
    """Return what makes a fact suspect, whoever says it; empty when nothing does."""
    found = []
    if _plain(subject) == _plain(object):
        found.append("the object is the subject")
    if _URL.search(object):
        found.append("the object contains a URL")
    if len(object) > MAX_OBJECT_CHARS:
        found.append(f"the object has {len(object)} characters, over {MAX_OBJECT_CHARS}")
    for name, text in (("subject", subject), ("object", object)):
        if why := _mixed(text):
            found.append(f"the {name} {why}")
    return tuple(found)


def decide(
    tier: Tier,
    *,
    auto_approve: frozenset[Tier],
    subject: str,
    object: str,
    is_guess: bool = False,
) -> Decision:
    """Decide on a new fact from its source's tier and its looks.

    A suspect fact is quarantined from any tier. `auto_approve` are the tiers approved by rule.
    `is_guess`: a language model read it out of a text, and no rule approves that.
    """
    if found := risks(subject, object):
        return Decision(State.QUARANTINED, "; ".join(found))
    if is_guess:
        why = f"read out of a text of tier {tier} by a language model: waits for a person"
        return Decision(State.PENDING, why)
    if tier in auto_approve:
        return Decision(State.APPROVED, f"approved by rule: tier {tier} is in auto_approve")
    return Decision(State.PENDING, f"tier {tier} waits for a person")
