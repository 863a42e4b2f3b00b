"""Finding facts that may be the same, and judging whether they are.

Nearness of embeddings only proposes pairs; the judge decides by slots, words and numbers, so that
"is" and "is not", 10 and 100, 2024 and 2025 never become one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ingest.mention import mentions
from ingest.names import Names
from ingest.objects import ask_alike, same_object
from ingest.phrasing import FIELD, core, fill
from ingest.text import fold
from ingest.types import ASKED
from ingest.wording import Wordings

_NO_WORDINGS, _NO_NAMES = Wordings({}), Names()


class Verdict(StrEnum):
    """How two claims relate."""

    SAME = "same"  #: one fact: add evidence
    CONFLICT = "conflict"  #: one slot, two objects
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the judge needs of a fact."""

    subject: str
    relation: str  #: a configured relation, or ASKED
    object: str
    prompt: str  #: the first prompt that asks for it


def sentence(subject: str, label: str, object: str) -> str:
    """Return the text of a fact that is embedded.

    `label` is a prompt (filled or with its subject field), or a relation's name.
    """
    asked = core(fill(label, subject)).strip()
    if FIELD not in label and fold(subject) not in fold(asked):
        asked = f"{subject} {asked.replace('_', ' ')}"
    return f"{asked} {object}"


def _same_said(a: Claim, b: Claim, names: Names) -> bool:
    """Tell whether two claims about one subject have one object, under whichever name."""
    subject = b.subject if a.relation == ASKED else a.subject
    return same_object(names.said(subject, a.object), names.said(subject, b.object))


def _judge_asked(asked: Claim, other: Claim, wordings: Wordings, names: Names) -> Verdict:
    """Judge a bare prompt's fact against one of a configured relation."""
    is_same = _same_said(asked, other, names)
    if fold(core(asked.prompt)) == fold(core(other.prompt)):
        return Verdict.SAME if is_same else Verdict.CONFLICT
    if not (is_same and ask_alike(asked.prompt, other.prompt)):
        return Verdict.UNRELATED
    is_same = any(
        mentions(asked.prompt, name) and wordings.may_ask(asked.prompt, name, other.relation)
        for name in (other.subject, *names.others(other.subject))
    )
    return Verdict.SAME if is_same else Verdict.UNRELATED


def judge(
    new: Claim, held: Claim, wordings: Wordings = _NO_WORDINGS, names: Names = _NO_NAMES
) -> Verdict:
    """Decide whether a new claim repeats a held one, contradicts it, or is about something else.

    One slot: the objects decide; all names of a subject are one. A bare prompt is the same as a
    fact of a relation when it has the fact's object, names its subject and not something longer,
    no number, negation, time or deputy makes another question of it, and its words are those of
    no other relation; with another object they are unrelated, unless the prompts are the same.
    Two different bare prompts are unrelated: nothing but their words could tell, and words alone
    do not. In doubt claims are unrelated, for a fact that is written twice harms nothing and a
    lost one does.
    """
    if new.relation == held.relation and names.key(new.subject) == names.key(held.subject):
        return Verdict.SAME if _same_said(new, held, names) else Verdict.CONFLICT
    if (new.relation == ASKED) == (held.relation == ASKED):
        return Verdict.UNRELATED
    asked, other = (new, held) if new.relation == ASKED else (held, new)
    return _judge_asked(asked, other, wordings, names)
