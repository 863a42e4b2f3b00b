"""What the stream should have taught at a moment, and the probes that ask for it. No torch here.

Every expectation is read from the data: the newest value that the updates so far give a slot.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.questions import Slot, group
from demo import world
from demo.world import Update

SEED = 7
NEAR, FAR = 600, 1000  #: probes of locality at the end
TEXT_WORDS = 24  #: of a piece of running text that must be continued as before
FIRST = 100  #: live facts whose retention is asked at the end


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, the right answer (None: the bare model's), and answers that would be stale."""

    prompt: str
    expected: str | None
    older: frozenset[str] = frozenset()


def newest(updates: Sequence[Update]) -> dict[tuple[str, str], Update]:
    """Return the last update of each slot."""
    return {(u.subject, u.relation): u for u in updates}


def of_facts(updates: Sequence[Update], only: int | None = None) -> dict[str, list[Asked]]:
    """Return what asks for the live facts, of ``only`` so many drawn at random."""
    phrasings, live = world.phrasings(), list(newest(updates).items())
    older: dict[tuple[str, str], set[str]] = {}
    for update in updates:
        older.setdefault((update.subject, update.relation), set()).update((update.old, update.new))
    if only is not None and only < len(live):
        live = random.Random(SEED).sample(live, only)
    found: dict[str, list[Asked]] = {"reliability": [], "generalisation": []}
    for slot, update in live:
        asked, stale = phrasings[update.relation], frozenset(older[slot] - {update.new})
        edit = asked.prompts[0].format(subject=update.subject)
        found["reliability"].append(Asked(edit, update.new, stale))
        for prompt in asked.held_out:
            found["generalisation"].append(
                Asked(prompt.format(subject=update.subject), update.new, stale)
            )
    return found


def first_facts(updates: Sequence[Update]) -> list[Asked]:
    """Return the edit prompts of the `FIRST` live facts that the stream brought first."""
    asked = world.phrasings()
    live = newest(updates)
    there = [u for u in updates if live[u.subject, u.relation] is u][:FIRST]
    return [Asked(asked[u.relation].prompts[0].format(subject=u.subject), u.new) for u in there]


def of_others(updates: Sequence[Update], near: int, far: int) -> dict[str, list[Asked]]:
    """Return prompts that must be answered as by the bare model.

    About slots that no update of the whole stream touches and that the daemon keeps for probes:
    near shares a subject or relation with a live fact, far neither; half of far is running text.
    """
    rng, phrasings = random.Random(SEED + 2), world.phrasings()
    touched = {(u.subject, u.relation) for u in world.updates()}
    live = newest(updates)
    subjects, relations = {s for s, _ in live}, {r for _, r in live}
    beside: list[str] = []
    apart: list[str] = []
    for fact in world.base_facts():
        slot = Slot(fact.subject, fact.relation)
        if (fact.subject, fact.relation) in touched or group(slot) != "probe":
            continue
        kind = beside if fact.subject in subjects or fact.relation in relations else apart
        kind += [p.format(subject=fact.subject) for p in phrasings[fact.relation].all]
    texts = rng.sample(world.prose(), far - min(far // 2, len(apart)))
    distant = rng.sample(apart, min(far // 2, len(apart)))
    distant += [" ".join(text.split()[:TEXT_WORDS]) for text in texts]
    return {
        "locality_near": [Asked(p, None) for p in rng.sample(beside, min(near, len(beside)))],
        "locality_far": [Asked(p, None) for p in distant],
    }
