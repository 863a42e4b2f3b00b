"""Measure a candidate as it would serve: free generation through the router, whole answers.

Every probe's prompt, expectation and answer is kept in `probes.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import wise
from daemon.measured import Measured
from daemon.messages import Build, Built, FactText, Miss, Outcome
from daemon.worker.probes import OF_FACTS, Probe, asked_of
from daemon.worker.session import Session
from policies.sampling import interval

MISSES = 3  #: of each kind that are reported


@dataclass(frozen=True, slots=True)
class Record:
    """A probe and what was answered."""

    kind: str
    prompt: str
    expected: str
    answer: str
    right: bool
    tokens: int  #: at most so many in the answer
    fact: int | None = None


def measure(
    session: Session,
    request: Build,
    parent: wise.Release | None,
    rewritten: Sequence[FactText],
    unfit: Mapping[int, str],
) -> Built:
    """Ask all probes of the candidate as saved, and write `probes.json` beside it.

    rewritten: the facts whose shards were rewritten; unfit: facts that training could not reach.
    """
    asked = asked_of(session, request, rewritten)
    candidate = wise.Release.read(Path(request.out))
    ours = [probe for probe in asked.probes if not rewritten or probe.expected is None]
    bare = _answers(session, ours, None, "asking the bare model", asked.usual)
    heard = _heard(session, asked.probes, candidate, "probing the candidate", asked.usual)
    said = {prompt: answer.text for prompt, answer in heard.items()}
    records = _records(asked.probes, said, bare, asked.usual)
    records += _stale(request, records, bare)
    compared = asked.of(*(OF_FACTS if rewritten else ("reliability", "retention")))
    before = {}
    if parent:
        before = _answers(session, compared, parent, "probing the parent", asked.usual)
    if rewritten:
        records += _unchanged(records, before, {fact.id for fact in rewritten})
    misfires = _misfires(records, heard, candidate)
    built = Built(
        measures=_tally(records, asked.whole),
        parent_measures=_tally(_records(compared, before, bare, asked.usual)) if parent else {},
        bare_measures={}
        if rewritten
        else _tally(_records(asked.of(*OF_FACTS), bare, bare, asked.usual)),
        outcomes=tuple(_outcome(f, records, unfit, misfires[f.id]) for f in request.facts),
        misses=_misses(records),
        figures={},
        base_name=candidate.base_name,
        base_sha256=candidate.base_sha256,
    )
    _write(Path(request.out), built, records)
    return built


def _answers(
    session: Session,
    probes: Sequence[Probe],
    release: wise.Release | None,
    stage: str,
    usual: int,
) -> dict[str, str]:
    """Return each prompt's answer with ``release``, None being the bare model."""
    if release is not None:
        heard = _heard(session, probes, release, stage, usual)
        return {prompt: answer.text for prompt, answer in heard.items()}
    answers: dict[str, str] = {}
    for tokens, prompts in _by_tokens(probes, usual):
        answers.update(zip(prompts, session.bare(prompts, tokens), strict=True))
    return answers


def _heard(
    session: Session, probes: Sequence[Probe], release: wise.Release, stage: str, usual: int
) -> dict[str, wise.Answer]:
    """Return each prompt's answer with ``release``, and what its router made of it."""
    answers: dict[str, wise.Answer] = {}
    with session.attached(release) as memory:
        for tokens, prompts in _by_tokens(probes, usual):
            answers.update(zip(prompts, session.ask(prompts, memory, stage, tokens), strict=True))
    return answers


def _by_tokens(probes: Sequence[Probe], usual: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each limit on an answer's tokens with the prompts, each once, that have it."""
    for tokens in sorted({p.tokens or usual for p in probes}):
        yield tokens, list(dict.fromkeys(p.prompt for p in probes if (p.tokens or usual) == tokens))


def _misfires(
    records: Sequence[Record], heard: Mapping[str, wise.Answer], candidate: wise.Release
) -> Counter[int]:
    """Count for each fact the prompts of other slots that it spoiled."""
    spoiled: Counter[int] = Counter()
    for record in records:
        if record.kind.startswith("locality") and not record.right:
            answer = heard[record.prompt]
            if answer.routed and answer.fact is not None:
                spoiled[candidate.fact_ids[answer.fact]] += 1
    return spoiled


def _records(
    probes: Sequence[Probe], said: Mapping[str, str], bare: Mapping[str, str], usual: int
) -> list[Record]:
    made = []
    for p in probes:
        answer, expected = said[p.prompt], bare[p.prompt] if p.expected is None else p.expected
        right, tokens = answer == expected, p.tokens or usual
        made.append(Record(p.kind, p.prompt, expected, answer, right, tokens, p.fact))
    return made


def _stale(request: Build, records: Sequence[Record], bare: Mapping[str, str]) -> list[Record]:
    """Judge each new fact's edit prompt once more: an older value is worse than a wrong one."""
    older = {f.id: ({*f.replaces, bare[f.prompts[0]]} - {f.object}) for f in request.facts}
    return [
        replace(record, kind="stale", right=record.answer not in older[record.fact])
        for record in records
        if record.kind == "reliability" and record.fact in older
    ]


def _unchanged(
    records: Sequence[Record], before: Mapping[str, str], rewritten: Set[int]
) -> list[Record]:
    """Compare edit prompts with the parent's answers; a wrong one may give way to the right one."""
    made = []
    for record in records:
        if record.kind == "reliability" and record.fact in rewritten:
            old = before[record.prompt]
            same = record.right or record.answer == old
            made.append(replace(record, kind="unchanged", expected=old, right=same))
    return made


def _tally(
    records: Sequence[Record], whole: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Measured]:
    kinds = dict.fromkeys(r.kind for r in records)
    return {
        kind: Measured(
            right=sum(r.right for r in records if r.kind == kind),
            asked=sum(r.kind == kind for r in records),
            whole=whole.get(kind),
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


def _outcome(
    fact: FactText, records: Sequence[Record], unfit: Mapping[int, str], misfires: int
) -> Outcome:
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
        unfit=unfit.get(fact.id, ""),
    )


def _reported(measured: Measured) -> dict[str, object]:
    """Return a measure as `probes.json` has it: with the 95 % interval where it is a sample's."""
    body: dict[str, object] = {"right": measured.right, "asked": measured.asked}
    if measured.whole is not None:
        low, high = interval(measured.right, measured.asked, measured.whole)
        body |= {"whole": measured.whole, "low": round(low, 5), "high": round(high, 5)}
    return body


def _write(folder: Path, built: Built, records: Sequence[Record]) -> None:
    body = {
        "format_version": 1,
        "measures": {
            "candidate": {k: _reported(m) for k, m in built.measures.items()},
            "parent": {k: _reported(m) for k, m in built.parent_measures.items()},
            "bare": {k: _reported(m) for k, m in built.bare_measures.items()},
        },
        "probes": [asdict(record) for record in records],
    }
    text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "probes.json").write_text(text, "utf-8")
