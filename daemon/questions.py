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
from itertools import islice

from daemon.config import Relation
from daemon.messages import Question, Questions

FIT, CALIBRATE = 1000, 500  #: at most so many questions of each
#: near slots for each new fact; one phrasing each, since phrasings of one slot fail together
SAME_SUBJECT, SAME_RELATION = 1, 3
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

    near: for each new fact some slots of the same subject, and some of the same relation.
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
        near=tuple(_probe(relations, s) for s in near),
        far=tuple(_probe(relations, s) for s in others),
    )


def _near(probes: Sequence[Slot], new: Sequence[Slot]) -> list[Slot]:
    """Return, for each new slot, unused probes that share its subject, and its relation."""
    chosen: dict[Slot, None] = {}
    by_subject: dict[str, list[Slot]] = {}
    by_relation: dict[str, list[Slot]] = {}
    for probe in probes:
        by_subject.setdefault(probe.subject, []).append(probe)
        by_relation.setdefault(probe.relation, []).append(probe)
    for slot in new:
        pools = (by_subject.get(slot.subject, []), by_relation.get(slot.relation, []))
        for pool, count in zip(pools, (SAME_SUBJECT, SAME_RELATION), strict=True):
            fresh = (p for p in pool if p not in chosen)
            chosen |= dict.fromkeys(list(islice(fresh, count)))
    return list(chosen)


def _question(relations: Mapping[str, Relation], slot: Slot) -> Question:
    relation = relations[slot.relation]
    return Question(
        prompts=tuple(p.replace("{subject}", slot.subject) for p in relation.prompts),
        held_out=tuple(p.replace("{subject}", slot.subject) for p in relation.held_out),
    )


def _probe(relations: Mapping[str, Relation], slot: Slot) -> str:
    """Return one phrasing, which one depending on the slot, so that all are probed."""
    question = _question(relations, slot)
    phrasings = question.prompts + question.held_out
    return phrasings[hashlib.sha256(slot.subject.encode()).digest()[1] % len(phrasings)]
