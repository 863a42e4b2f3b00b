"""Build a candidate: write the new facts or rewrite shards, route, save, measure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import wise
from daemon.messages import Build, Built, FactText, ShardMade
from daemon.worker import compaction, measuring, paper, routing, writing
from daemon.worker.routing import FactKeys, Routing
from daemon.worker.session import Session
from daemon.worker.writing import Written

OUTGROWN = 1.5  #: times as many questions as a space was fitted to teach a better one


@dataclass(frozen=True, slots=True)
class _Made:
    """A candidate before it is measured."""

    release: wise.Release
    shards: tuple[ShardMade, ...] = ()
    written: Written | None = None  #: None: nothing was trained, or by the paper's method


def build(session: Session, request: Build) -> Built:
    """Serve a build request; the model is left bare."""
    started = time.monotonic()
    parent = session.load(request.parent) if request.parent else None
    _ = session.background, session.base_sha256
    tempfile.gettempdir()  # where a disk is full there is none, and no fact is to blame for that
    session.begin(text for fact in request.facts for text in (fact.object, *fact.prompts))
    made = _made(session, request, parent)
    made_at = time.monotonic()
    made.release.save(Path(request.out))
    if not request.measured:
        return Built(base_name=made.release.base_name, base_sha256=session.base_sha256)
    unfit = made.written.unfit if made.written else {}
    rewritten = compaction.held(request, parent) if request.rewritten and parent else ()
    measured = measuring.measure(session, request, parent, rewritten, unfit)
    figures = {
        "seconds_training": made_at - started,
        "seconds_measuring": time.monotonic() - made_at,
        **_figures(made),
    }
    memory = made.release.memory
    shard_of = memory.shard_of.tolist() if isinstance(memory, wise.SideMemory) else ()
    return measured.model_copy(
        update={"figures": figures, "shards": made.shards, "shard_of": tuple(shard_of)}
    )


def _made(session: Session, request: Build, parent: wise.Release | None) -> _Made:
    # NOTE: the paper's memory is never empty; without facts either method has nothing to say
    if session.config.wise.method == "paper" and (request.kept or request.facts):
        return _Made(paper.release(session, request, parent))
    base, inherited = _base(request, parent)
    if request.rewritten and base is not None:
        release, written = compaction.rewritten(session, request, base)
        stay = [shard for shard in inherited if shard.inherited not in request.rewritten]
        return _Made(release, (*stay, *written.made), written)
    fresh = request.facts if base else (*request.kept, *request.facts)
    if not fresh and base is not None:
        return _Made(base, inherited)  # it only forgets: all else stays as it is, bit for bit
    return _grown(session, request, base, inherited, fresh)


def _figures(made: _Made) -> dict[str, float]:
    release = made.release
    if not isinstance(release.memory, wise.SideMemory):
        memory = release.memory
        return {"shards": float(len(memory.shards)), "epsilon": memory.epsilon}
    assert release.calibration is not None
    return {
        "shards": float(len(release.memory.shards)),
        "keys": float(len(release.memory.keys)),
        "threshold": release.calibration.threshold,
        "highest_negative": release.calibration.highest_negative,
        "lowest_key": release.calibration.lowest_key,
        "false_fire_bound": release.calibration.false_fire_bound,
        **(made.written.figures if made.written else {}),
    }


def _base(
    request: Build, parent: wise.Release | None
) -> tuple[wise.Release | None, tuple[ShardMade, ...]]:
    """Return what stays of the parent, and its shards; None when all must be written anew."""
    if parent is None or not isinstance(parent.memory, wise.SideMemory):
        return None, ()
    kept = {f.id for f in request.kept}
    base = parent.without(fact for fact in parent.fact_ids if fact not in kept)
    holders = zip(parent.fact_ids, parent.memory.shard_of.tolist(), strict=True)
    positions = sorted({shard for fact, shard in holders if fact in kept})
    shards = zip(positions, base.shard_facts, strict=True)
    return base, tuple(ShardMade(solved=n, inherited=position) for position, n in shards)


def _grown(
    session: Session,
    request: Build,
    base: wise.Release | None,
    inherited: tuple[ShardMade, ...],
    fresh: Sequence[FactText],
) -> _Made:
    """Write ``fresh`` into shards of its own beside the base's, and route to them."""
    around = writing.contexts(session, request)
    unrelated = routing.negatives(session, request.questions, around)
    written = writing.write(session, request, fresh, around, unrelated) if fresh else None
    session.report("calibrating the router", 0, 1)
    ids = (*(base.fact_ids if base else ()), *(f.id for f in fresh))
    earlier = None if base is None or _outgrown(base, request) else _routing(base)
    keyed = fresh if earlier or not base else (*request.kept, *fresh)
    raw = _raw_keys(session, written, keyed, around, {fact: i for i, fact in enumerate(ids)})
    router = routing.routed(session, request.questions, around, raw, unrelated, earlier)
    made = (*inherited, *(written.made if written else ()))
    release = wise.Release(
        session.site,
        _memory(session, base, written, router),
        ids,
        session.config.model.name,
        session.base_sha256,
        router.calibration,
        tuple(shard.solved for shard in made),
    )
    return _Made(release, made, written)


def _memory(
    session: Session, base: wise.Release | None, written: Written | None, router: Routing
) -> wise.SideMemory:
    """Put the base's shards and the new ones behind one table of keys."""
    none = torch.zeros(0, dtype=torch.long)
    shards: tuple[wise.Shard, ...] = ()
    span, shard_of = none, none
    if base:
        assert isinstance(base.memory, wise.SideMemory)
        shards, span, shard_of = base.memory.shards, base.memory.span, base.memory.shard_of
    if written:
        shard_of = torch.cat([shard_of, len(shards) + torch.tensor(written.shard_of)])
        shards = (*shards, *written.shards(session.stored_dtype))
        span = torch.cat([span, _spans(session, written.facts)])
    threshold = router.calibration.threshold
    return wise.SideMemory(shards, router.where, router.table, span, shard_of, threshold)


def _routing(base: wise.Release) -> Routing:
    assert isinstance(base.memory, wise.SideMemory) and base.calibration is not None
    return Routing(base.memory.space, base.memory.keys, base.calibration)


def _outgrown(base: wise.Release, request: Build) -> bool:
    """Tell whether there are so many more questions by now that the space is to be fitted anew.

    A young store knows few subjects, and a space learned from those confuses others. Since the
    number of questions grows by a factor each time and is bounded, all keys are looked at again a
    few times only, however many facts there will be.
    """
    fitted = base.calibration.questions if base.calibration else 0
    return len(request.questions.fit) > OUTGROWN * fitted


def _raw_keys(
    session: Session,
    written: Written | None,
    facts: Sequence[FactText],
    around: wise.Contexts,
    place: dict[int, int],
) -> FactKeys:
    """Return the raw keys of ``facts``; those just written need no second look."""
    if written and tuple(facts) == written.facts:
        made, inputs = list(written.problem.examples), written.problem.keys
    else:
        made = writing.examples(session, facts, around)
        inputs = wise.last_inputs(session.model, session.site, [e.prompt for e in made])
    fact = torch.tensor([place[e.fact] for e in made], dtype=torch.long)
    prompt = torch.tensor([e.phrasing for e in made], dtype=torch.long)
    return FactKeys(inputs.reshape(-1, session.site.d_in), fact, prompt)


def _spans(session: Session, facts: Sequence[FactText]) -> torch.Tensor:
    lengths = [len(wise.answer_tokens(session.tokenizer, fact.object)) for fact in facts]
    return torch.tensor(lengths, dtype=torch.long)
