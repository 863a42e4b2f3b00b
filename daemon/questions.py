"""Choose the questions that calibrate a router and probe a candidate. Pure.

Every slot belongs, by a hash of its name, to one of three groups for good: questions that the
router's space is fitted to, negatives for its threshold, probes. A probe is thus never seen
by anything that was trained or calibrated, in any release.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from daemon.config import Relation
from daemon.messages import Question, Questions

FIT, CALIBRATE = 250, 500  #: at most so many questions of each
#: phrasings that a near slot is asked in: a small batch has few, and a share of few is coarse
NEAR_PHRASINGS = 3
#: share of all slots, in tenths, that falls to fitting; to fitting or calibration
FIT_TENTHS, CALIBRATE_TENTHS = 4, 7


@dataclass(frozen=True, slots=True)
class Slot:
    """A subject and a relation."""

    subject: str
    relation: str


def group(slot: Slot) -> str:
    """Return ``fit``, ``calibrate`` or ``probe``."""
    name = f"{slot.relation}\0{slot.subject}".encode("utf-8", "surrogatepass")
    tenth = hashlib.sha256(name).digest()[0] % 10
    if tenth < FIT_TENTHS:
        return "fit"
    return "calibrate" if tenth < CALIBRATE_TENTHS else "probe"


def choose(
    relations: Mapping[str, Relation],
    subjects: Set[str],
    live: Set[Slot],
    new: Sequence[Slot],
    *,
    far: int,
    seed: int,
) -> Questions:
    """Return the questions for a candidate that adds ``new``; no slot of ``live`` is asked.

    near: for each new fact one slot of the same subject and one of the same relation.
    """
    rng = random.Random(seed)
    free = [
        slot
        for subject in sorted(subjects)
        for relation in sorted(relations)
        if (slot := Slot(subject, relation)) not in live
    ]
    rng.shuffle(free)
    groups: dict[str, list[Slot]] = {"fit": [], "calibrate": [], "probe": []}
    for slot in free:
        groups[group(slot)].append(slot)
    near = _near(groups["probe"], new)
    used = {slot.subject for slot in new} | {slot.relation for slot in new}
    rest = [s for s in groups["probe"] if s not in near]
    # The least related first: a large batch leaves few slots that share nothing with it.
    others = sorted(rest, key=lambda s: (s.subject in used) + (s.relation in used))[:far]
    return Questions(
        fit=tuple(_question(relations, s) for s in groups["fit"][:FIT]),
        calibrate=tuple(_question(relations, s) for s in groups["calibrate"][:CALIBRATE]),
        near=tuple(p for s in near for p in _probes(relations, s, NEAR_PHRASINGS)),
        far=tuple(p for s in others for p in _probes(relations, s, 1)),
    )


def _near(probes: Sequence[Slot], new: Sequence[Slot]) -> list[Slot]:
    """Return, for each new slot, an unused probe that shares its subject, one its relation."""
    chosen: dict[Slot, None] = {}
    by_subject: dict[str, list[Slot]] = {}
    by_relation: dict[str, list[Slot]] = {}
    for probe in probes:
        by_subject.setdefault(probe.subject, []).append(probe)
        by_relation.setdefault(probe.relation, []).append(probe)
    for slot in new:
        for pool in (by_subject.get(slot.subject, []), by_relation.get(slot.relation, [])):
            if fresh := next((p for p in pool if p not in chosen), None):
                chosen[fresh] = None
    return list(chosen)


def _question(relations: Mapping[str, Relation], slot: Slot) -> Question:
    relation = relations[slot.relation]
    return Question(
        prompts=tuple(p.replace("{subject}", slot.subject) for p in relation.prompts),
        held_out=tuple(p.replace("{subject}", slot.subject) for p in relation.held_out),
    )


def _probes(relations: Mapping[str, Relation], slot: Slot, count: int) -> list[str]:
    """Return ``count`` phrasings, which ones depending on the slot, so that all are probed."""
    question = _question(relations, slot)
    phrasings = question.prompts + question.held_out
    first = hashlib.sha256(slot.subject.encode()).digest()[1]
    step = range(min(count, len(phrasings)))
    return [phrasings[(first + i) % len(phrasings)] for i in step]
