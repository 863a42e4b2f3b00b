"""Finding facts that may be the same, and judging whether they are.

Nearness of embeddings only proposes pairs; the judge decides by slots, words and numbers, so that
"is" and "is not", 10 and 100, 2024 and 2025 never become one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ingest.mention import mentions
from ingest.objects import ask_alike, same_object
from ingest.phrasing import FIELD, core, fill
from ingest.text import fold, slot_key
from ingest.types import ASKED
from ingest.wording import Wordings

_NO_WORDINGS = Wordings({})


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


def _judge_asked(asked: Claim, other: Claim, wordings: Wordings) -> Verdict:
    """Judge a bare prompt's fact against one of a configured relation."""
    if fold(core(asked.prompt)) == fold(core(other.prompt)):
        return Verdict.SAME if same_object(asked.object, other.object) else Verdict.CONFLICT
    is_same = (
        same_object(asked.object, other.object)
        and ask_alike(asked.prompt, other.prompt)
        and mentions(asked.prompt, other.subject)
        and wordings.may_ask(asked.prompt, other.subject, other.relation)
    )
    return Verdict.SAME if is_same else Verdict.UNRELATED


def judge(new: Claim, held: Claim, wordings: Wordings = _NO_WORDINGS) -> Verdict:
    """Decide whether a new claim repeats a held one, contradicts it, or is about something else.

    One slot: the objects decide. A bare prompt is the same as a fact of a relation when it has
    the fact's object, names its subject and not something longer, no number, negation, time or
    deputy makes another question of it, and its words are those of no other relation; with
    another object they are unrelated, unless the prompts are the same. Two different bare
    prompts are unrelated: nothing but their words could tell, and words alone do not. In doubt
    claims are unrelated, for a fact that is written twice harms nothing and a lost one does.
    """
    if slot_key(new.subject, new.relation) == slot_key(held.subject, held.relation):
        return Verdict.SAME if same_object(new.object, held.object) else Verdict.CONFLICT
    if (new.relation == ASKED) == (held.relation == ASKED):
        return Verdict.UNRELATED
    asked, other = (new, held) if new.relation == ASKED else (held, new)
    return _judge_asked(asked, other, wordings)
