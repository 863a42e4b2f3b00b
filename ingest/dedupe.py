"""Finding facts that may be the same, and judging whether they are.

Nearness of embeddings only proposes pairs; the judge decides by slots, words and numbers, so that
"is" and "is not", 10 and 100, 2024 and 2025 never become one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ingest.objects import agree, same_object
from ingest.phrasing import FIELD, core, fill
from ingest.text import fold, slot_key
from ingest.types import ASKED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: scores held at once: 4 million float32 are 16 MB
_CHUNK_SCORES = 4_000_000


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


def _best(scores: npt.NDArray[np.float32], k: int, floor: float) -> list[tuple[int, float]]:
    import numpy as np

    candidates = np.flatnonzero(scores >= floor)
    # Stable, so that equal scores keep the order of the vectors.
    order = np.argsort(-scores[candidates], kind="stable")[:k]
    return [(int(index), float(scores[index])) for index in candidates[order]]


def nearest(
    vectors: npt.NDArray[np.float32],  # (n, d), rows of length 1
    queries: npt.NDArray[np.float32],  # (m, d), rows of length 1
    k: int,
    floor: float,
) -> list[list[tuple[int, float]]]:
    """Return, per query, at most k (row, cosine) of at least `floor`, the nearest first."""
    if not len(vectors) or k < 1:
        return [[] for _ in range(len(queries))]
    step = max(1, _CHUNK_SCORES // len(vectors))
    return [
        _best(scores, k, floor)
        for start in range(0, len(queries), step)
        for scores in queries[start : start + step] @ vectors.T
    ]


def _mentions(prompt: str, subject: str) -> bool:
    words = fold(subject)
    return bool(words) and f" {words} " in f" {fold(prompt)} "


def _judge_asked(asked: Claim, other: Claim) -> Verdict:
    """Judge a bare prompt's fact against one of a configured relation."""
    if fold(core(asked.prompt)) == fold(core(other.prompt)):
        return Verdict.SAME if same_object(asked.object, other.object) else Verdict.CONFLICT
    is_same = (
        _mentions(asked.prompt, other.subject)
        and same_object(asked.object, other.object)
        and agree(asked.prompt, other.prompt)
    )
    return Verdict.SAME if is_same else Verdict.UNRELATED


def judge(new: Claim, held: Claim) -> Verdict:
    """Decide whether a new claim repeats a held one, contradicts it, or is about something else.

    One slot: the objects decide. A bare prompt is the same as a fact of a relation when it names
    the fact's subject, has its object, and no number or negation differs; with another object
    they are unrelated, unless the prompts are the same. Two different bare prompts are unrelated:
    nothing but their words could tell, and words alone do not.
    """
    if slot_key(new.subject, new.relation) == slot_key(held.subject, held.relation):
        return Verdict.SAME if same_object(new.object, held.object) else Verdict.CONFLICT
    if (new.relation == ASKED) == (held.relation == ASKED):
        return Verdict.UNRELATED
    return _judge_asked(new, held) if new.relation == ASKED else _judge_asked(held, new)
