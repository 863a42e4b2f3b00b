"""What a candidate is asked: prompts that no training and no calibration has seen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import wise
from daemon.messages import Build, FactText
from daemon.worker.session import Session

FAR_TEXTS = 40  #: pieces of running text whose continuation must not change
FAR_WORDS = 24  #: length of such a piece
FAR_TOKENS = 16  #: length of the continuation
#: an answer is cut off at the next multiple of this beyond the longest expected one; few
#: different limits, so that the bare model's answers can be kept from cycle to cycle
TOKEN_STEP = 16
#: kinds that ask for a stored fact; the others ask for what must stay the bare model's answer
OF_FACTS = ("reliability", "generalisation", "after_text", "second_turn", "retention")


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and what a good candidate answers; None: whatever the bare model does."""

    kind: str
    prompt: str
    expected: str | None
    fact: int | None = None  #: Fact.id of the fact it asks for
    tokens: int | None = None  #: at most so many in the answer; None: the candidate's usual limit


@dataclass(frozen=True, slots=True)
class Asked:
    """What a candidate is asked."""

    probes: tuple[Probe, ...]
    usual: int  #: tokens of an answer at most, where the probe says nothing else
    whole: Mapping[str, int]  #: how many probes of a kind there are, where a sample is asked

    def of(self, *kinds: str) -> list[Probe]:
        """Return the probes of some kinds."""
        return [probe for probe in self.probes if probe.kind in kinds]


def asked_of(session: Session, request: Build, rewritten: Sequence[FactText]) -> Asked:
    """Return all probes; none of their phrasings, contexts or slots was trained or calibrated.

    New facts are asked for in full; of rewritten ones the edit prompts are, all else and all
    other facts by a sample that the release's number seeds, so that cost doesn't grow with history.
    """
    section, usual = session.config, _usual_tokens(session, request)
    rng = random.Random(section.wise.seed + 1)
    drawn = random.Random(f"{section.wise.seed}:{request.number}")
    made = [Probe("locality_near", prompt, None) for prompt in request.questions.near]
    made += [Probe("locality_far", prompt, None) for prompt in request.questions.far]
    turns = [p.prompt for p in made]
    said = dict(zip(turns, session.bare(turns, usual), strict=True))
    contexts = wise.Contexts(session.background.probe, tuple(f"{p} {a}" for p, a in said.items()))
    for fact in request.facts:
        made += _of_fact(fact, contexts, rng)
    sample, whole = section.gate.retention_sample, {}
    for fact in rewritten:
        made.append(Probe("reliability", fact.prompts[0], fact.object, fact.id))
    for fact in drawn.sample(rewritten, min(sample, len(rewritten))):
        made += _of_fact(fact, contexts, rng)[1:]
    if len(rewritten) > sample:
        whole = _whole(made, len(rewritten), sample)
    again = {fact.id for fact in rewritten}
    others = [fact for fact in request.kept if fact.id not in again]
    for fact in drawn.sample(others, min(sample, len(others))):
        made.append(Probe("retention", fact.prompts[0], fact.object, fact.id))
    if len(others) > sample:
        whole["retention"] = len(others)
    for fact in request.withdrawn:
        made.append(Probe("withdrawn", fact.prompts[0], None, fact.id))
    made += _far_texts(session, rng)
    return Asked(tuple(made), usual, whole)


def _whole(made: Sequence[Probe], facts: int, sample: int) -> dict[str, int]:
    """Return how many probes there would be had all facts been asked for, of what was sampled."""
    counts = Counter(probe.kind for probe in made if probe.kind in OF_FACTS[1:])
    return {kind: count * facts // sample for kind, count in counts.items()}


def _far_texts(session: Session, rng: random.Random) -> list[Probe]:
    """Return pieces of running text that are to be continued as the bare model does."""
    made: list[Probe] = []
    texts = [t for t in session.background.probe if len(t.split()) > FAR_WORDS]
    for text in rng.sample(texts, min(FAR_TEXTS, len(texts))):
        made.append(
            Probe("locality_far", " ".join(text.split()[:FAR_WORDS]), None, tokens=FAR_TOKENS)
        )
    return made


def _usual_tokens(session: Session, request: Build) -> int:
    """Return how many tokens an answer may have before it is cut off."""
    held = (*request.facts, *request.kept, *request.withdrawn)
    lengths = [len(wise.answer_tokens(session.tokenizer, f.object)) for f in held]
    return TOKEN_STEP * (max(lengths, default=0) // TOKEN_STEP + 1)


def _of_fact(fact: FactText, contexts: wise.Contexts, rng: random.Random) -> list[Probe]:
    """Return the probes of one new fact: plain, in other words, after text, in a second turn."""
    edit = fact.prompts[0]
    made = [Probe("reliability", edit, fact.object, fact.id)]
    made += [Probe("generalisation", p, fact.object, fact.id) for p in fact.held_out]
    if contexts.passages:
        before = wise.Contexts(passages=contexts.passages).before(edit, rng)[1]
        made.append(Probe("after_text", before, fact.object, fact.id))
    if contexts.turns:
        before = wise.Contexts(turns=contexts.turns).before(edit, rng)[1]
        made.append(Probe("second_turn", before, fact.object, fact.id))
    return made
