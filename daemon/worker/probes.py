"""Measure a candidate as it would serve: free generation through the router, whole answers.

Every probe's prompt, expectation and answer is kept in `probes.json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import wise
from daemon.messages import Build, Built, FactText, Measured, Miss, Outcome
from daemon.worker.session import Session

FAR_TEXTS = 40  #: pieces of running text whose continuation must not change
FAR_WORDS = 24  #: length of such a piece
FAR_TOKENS = 16  #: length of the continuation
#: an answer is cut off at the next multiple of this beyond the longest expected one; few
#: different limits, so that the bare model's answers can be kept from cycle to cycle
TOKEN_STEP = 16
MISSES = 3  #: of each kind that are reported
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
class Record:
    """A probe and what was answered."""

    kind: str
    prompt: str
    expected: str
    answer: str
    right: bool
    fact: int | None = None


def measure(
    session: Session, request: Build, parent: wise.Release | None, fit: wise.Fit | None
) -> Built:
    """Ask all probes of the candidate as saved, and write `probes.json` beside it."""
    asked = _probes(session, request)
    usual = _usual_tokens(session, request)
    bare = _answers(session, asked, None, "asking the bare model", usual)
    candidate = wise.Release.read(Path(request.out))
    said = _answers(session, asked, candidate, "probing the candidate", usual)
    records = _records(asked, said, bare)
    records += _stale(request, records, bare)
    facts_only = [p for p in asked if p.kind in ("reliability", "retention")]
    before = {}
    if parent:
        before = _answers(session, facts_only, parent, "probing the parent", usual)
    built = Built(
        measures=_tally(records),
        parent_measures=_tally(_records(facts_only, before, bare)) if parent else {},
        bare_measures=_tally(_records([p for p in asked if p.kind in OF_FACTS], bare, bare)),
        outcomes=tuple(_outcome(f, records, fit) for f in request.facts),
        misses=_misses(records),
        figures={},
        base_name=candidate.base_name,
        base_sha256=candidate.base_sha256,
    )
    _write(Path(request.out), built, records)
    return built


def _probes(session: Session, request: Build) -> list[Probe]:
    """Return all probes; none of their phrasings, contexts or slots was trained or calibrated."""
    rng = random.Random(session.config.wise.seed + 1)
    made = [Probe("locality_near", prompt, None) for prompt in request.questions.near]
    made += [Probe("locality_far", prompt, None) for prompt in request.questions.far]
    turns = [p.prompt for p in made]
    said = dict(zip(turns, session.bare(turns, _usual_tokens(session, request)), strict=True))
    contexts = wise.Contexts(session.background.probe, tuple(f"{p} {a}" for p, a in said.items()))
    for fact in request.facts:
        made += _of_fact(fact, contexts, rng)
    sample = min(session.config.gate.retention_sample, len(request.kept))
    for fact in rng.sample(request.kept, sample):
        made.append(Probe("retention", fact.prompts[0], fact.object, fact.id))
    for fact in request.withdrawn:
        made.append(Probe("withdrawn", fact.prompts[0], None, fact.id))
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


def _answers(
    session: Session,
    probes: Sequence[Probe],
    release: wise.Release | None,
    stage: str,
    usual: int,
) -> dict[str, str]:
    """Return each prompt's answer with ``release``, None being the bare model."""
    answers: dict[str, str] = {}
    limits = {p.tokens or usual for p in probes}
    for tokens in sorted(limits):
        prompts = list(dict.fromkeys(p.prompt for p in probes if (p.tokens or usual) == tokens))
        if release is None:
            said = session.bare(prompts, tokens)
        else:
            with session.attached(release) as memory:
                said = [a.text for a in session.ask(prompts, memory, stage, tokens)]
        answers.update(zip(prompts, said, strict=True))
    return answers


def _records(
    probes: Sequence[Probe], said: Mapping[str, str], bare: Mapping[str, str]
) -> list[Record]:
    return [
        Record(p.kind, p.prompt, expected, said[p.prompt], said[p.prompt] == expected, p.fact)
        for p in probes
        for expected in (bare[p.prompt] if p.expected is None else p.expected,)
    ]


def _stale(request: Build, records: Sequence[Record], bare: Mapping[str, str]) -> list[Record]:
    """Judge each new fact's edit prompt once more: an older value is worse than a wrong one."""
    older = {f.id: ({*f.replaces, bare[f.prompts[0]]} - {f.object}) for f in request.facts}
    return [
        Record("stale", r.prompt, r.expected, r.answer, r.answer not in older[r.fact], r.fact)
        for r in records
        if r.kind == "reliability" and r.fact is not None
    ]


def _tally(records: Sequence[Record]) -> dict[str, Measured]:
    kinds = dict.fromkeys(r.kind for r in records)
    return {
        kind: Measured(
            right=sum(r.right for r in records if r.kind == kind),
            asked=sum(r.kind == kind for r in records),
        )
        for kind in kinds
    }


def _misses(records: Sequence[Record]) -> tuple[Miss, ...]:
    """Return the first few misses of each kind, so that a refusal can be understood."""
    misses: list[Miss] = []
    for record in records:
        shown = sum(m.probe == record.kind for m in misses)
        if not record.right and shown < MISSES:
            miss = Miss(
                probe=record.kind,
                prompt=record.prompt,
                expected=record.expected,
                answer=record.answer,
            )
            misses.append(miss)
    return tuple(misses)


def _outcome(fact: FactText, records: Sequence[Record], fit: wise.Fit | None) -> Outcome:
    own = [r for r in records if r.fact == fact.id]
    other = [r.right for r in own if r.kind == "generalisation"]
    context = [r.right for r in own if r.kind in ("after_text", "second_turn")]
    return Outcome(
        id=fact.id,
        reliable=all(r.right for r in own if r.kind == "reliability"),
        generalised=sum(other),
        generalised_asked=len(other),
        in_context=sum(context),
        in_context_asked=len(context),
        unfit=fit.unfit.get(fact.id, "") if fit else "",
    )


def _write(folder: Path, built: Built, records: Sequence[Record]) -> None:
    body = {
        "format_version": 1,
        "measures": {
            "candidate": {k: m.model_dump() for k, m in built.measures.items()},
            "parent": {k: m.model_dump() for k, m in built.parent_measures.items()},
            "bare": {k: m.model_dump() for k, m in built.bare_measures.items()},
        },
        "probes": [asdict(record) for record in records],
    }
    text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "probes.json").write_text(text, "utf-8")
