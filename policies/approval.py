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
#: scripts with letters that pass for one another
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"})
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


def _scripts(text: str) -> set[str]:
    """Return the look-alike scripts of a text's words; a lone letter (alpha, pi) is a symbol."""
    letters = (char for word in _WORD.findall(text) for char in word if char.isalpha())
    return {unicodedata.name(char, "").split(" ")[0] for char in letters} & _ALIKE


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
        if len(scripts := _scripts(text)) > 1:
            found.append(f"the {name} mixes {' and '.join(sorted(scripts)).lower()} letters")
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
