"""Build a candidate: train the batch's shard, merge where due, route, save, measure."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import wise
from daemon.messages import Build, Built, FactText
from daemon.worker import paper, probes, routing
from daemon.worker.routing import FactKeys
from daemon.worker.session import Session
from wise.router import ALIKE, own_matches
from wise.train import Report

TURNS = 100  #: earlier questions, with the model's own answers, used as second-turn contexts


@dataclass(frozen=True, slots=True)
class _Trained:
    """A candidate's shards and what training them came to."""

    shards: tuple[wise.Shard, ...]
    shard_facts: tuple[int, ...]  #: for how many facts each was solved
    fresh: tuple[FactText, ...]  #: facts whose keys are new; they are in the last shard
    problem: wise.Problem | None  #: captured examples of them; None when there are none
    fit: wise.Fit | None
    refit: bool  #: all keys are new, so their space may be fitted anew


def build(session: Session, request: Build) -> Built:
    """Serve a build request; the model is left bare."""
    started = time.monotonic()
    parent = session.load(request.parent) if request.parent else None
    # NOTE: the paper's memory is never empty; without facts either method has nothing to say
    if session.config.wise.method == "paper" and (request.kept or request.facts):
        release, fit = paper.release(session, request, parent), None
    else:
        release, fit = _keyed_release(session, request, parent)
    made_at = time.monotonic()
    release.save(Path(request.out))
    measured = probes.measure(session, request, parent, fit)
    figures = {
        "seconds_training": made_at - started,
        "seconds_measuring": time.monotonic() - made_at,
        **_figures(release, fit),
    }
    return measured.model_copy(update={"figures": figures})


def _figures(release: wise.Release, fit: wise.Fit | None) -> dict[str, float]:
    if not isinstance(release.memory, wise.SideMemory):
        memory = release.memory
        return {"shards": float(len(memory.shards)), "epsilon": memory.epsilon}
    assert release.calibration is not None
    figures = {
        "shards": float(len(release.memory.shards)),
        "keys": float(len(release.memory.keys)),
        "threshold": release.calibration.threshold,
        "highest_negative": release.calibration.highest_negative,
        "lowest_key": release.calibration.lowest_key,
        "false_fire_bound": release.calibration.false_fire_bound,
    }
    if fit:
        figures |= {"iterations": float(fit.iterations), "loss": fit.loss}
    return figures


def _keyed_release(
    session: Session, request: Build, parent: wise.Release | None
) -> tuple[wise.Release, wise.Fit | None]:
    base = _base(request, parent)
    contexts = _contexts(session, request)
    trained = _train(session, request, base, contexts)
    return _assemble(session, request, base, trained, contexts), trained.fit


def _base(request: Build, parent: wise.Release | None) -> wise.Release | None:
    """Return what stays of the parent: its kept facts; None when all must be written anew."""
    if parent is None or not isinstance(parent.memory, wise.SideMemory):
        return None
    kept = {f.id for f in request.kept}
    return parent.without(fact for fact in parent.fact_ids if fact not in kept)


def _contexts(session: Session, request: Build) -> wise.Contexts:
    """Return the texts that training and calibration put before prompts; probes use others."""
    rng = random.Random(session.config.wise.seed)
    pool = [q.prompts[rng.randrange(len(q.prompts))] for q in request.questions.fit[:TURNS]]
    answers = session.bare(pool)
    turns = [f"{p} {a}" for p, a in zip(pool, answers, strict=True) if a]
    return wise.Contexts(session.background.train, tuple(turns))


def _examples(
    session: Session, facts: Sequence[FactText], contexts: wise.Contexts
) -> list[wise.Example]:
    texts = [wise.Fact(f.id, f.prompts, f.object) for f in facts]
    seed = session.config.wise.seed
    return wise.examples(
        texts, session.tokenizer, contexts, max_tokens=session.max_tokens, seed=seed
    )


def _captured(session: Session, facts: Sequence[FactText], contexts: wise.Contexts) -> wise.Problem:
    session.report("capturing activations", 0, len(facts))
    made = _examples(session, facts, contexts)
    section = session.config.wise
    mixed = None if section.mixed_precision else False
    return wise.Problem(
        session.model, session.site, made, section.activation_budget_mb, mixed=mixed
    )


def _training(session: Session) -> wise.Training:
    section = session.config.wise
    return wise.Training(
        rho=section.rho,
        ridge=section.ridge,
        invariance=section.invariance,
        aim=section.aim_nats,
        margin=section.margin_nats,
        iterations=section.max_iterations,
    )


def _train(
    session: Session, request: Build, base: wise.Release | None, contexts: wise.Contexts
) -> _Trained:
    section, how, seed = session.config.wise, _training(session), _seed(session, request)
    live = (*request.kept, *request.facts)
    fresh = request.facts if base else live
    shards, counts = _shards(base), base.shard_facts if base else ()
    due = len(shards) + bool(fresh) > section.max_shards
    dropped = base is not None and base.holds_dropped
    problem = fit = None

    def report(stage: str) -> Report:
        return lambda done, total, loss: session.report(stage, done, total)

    if fresh and not (due and dropped):  # what is solved anew below needs no shard of its own
        problem = _captured(session, fresh, contexts)
        fit = wise.train_shard(problem, how, seed=seed, report=report("training the shard"))
        shards, counts = (*shards, fit.shard), (*counts, len(fresh))
    if not due:
        return _Trained(_stored(session, shards), counts, fresh, problem, fit, refit=base is None)
    problem = _captured(session, live, contexts)
    fit = wise.compact(
        problem,
        shards,
        dropped=dropped,
        density=section.ties_density,
        how=how,
        seed=seed,
        report=report("merging the shards"),
    )
    return _Trained(_stored(session, (fit.shard,)), (len(live),), live, problem, fit, refit=True)


def _shards(base: wise.Release | None) -> tuple[wise.Shard, ...]:
    return base.memory.shards if base and isinstance(base.memory, wise.SideMemory) else ()


def _stored(session: Session, shards: Sequence[wise.Shard]) -> tuple[wise.Shard, ...]:
    return tuple(shard.stored_as(session.stored_dtype) for shard in shards)


def _seed(session: Session, request: Build) -> int:
    return session.config.wise.seed * 1_000_003 + request.number


def _assemble(
    session: Session,
    request: Build,
    base: wise.Release | None,
    trained: _Trained,
    contexts: wise.Contexts,
) -> wise.Release:
    """Put shards, keys and threshold together."""
    session.report("calibrating the router", 0, 1)
    held = None if trained.refit else base
    if held is None:
        where, earlier = routing.space(session, request.questions, contexts), None
        old = _nothing(session, where)
    else:
        assert isinstance(held.memory, wise.SideMemory)
        where, earlier, old = held.memory.space, held.calibration, held.memory
    before = held.fact_ids if held else ()
    ids = (*before, *(f.id for f in trained.fresh))
    fresh = _fresh_keys(trained.problem, {fact: i for i, fact in enumerate(ids)}, session)
    vectors = where(fresh.inputs)
    new = wise.prototypes(vectors, fresh.fact, ALIKE)
    whole = torch.cat([old.keys.vectors, new.vectors])
    table = wise.Keys(whole, torch.cat([old.keys.fact, new.fact]))
    own = own_matches(vectors, fresh.fact, fresh.prompt)
    unrelated = routing.negatives(session, request.questions, contexts)
    calibration = routing.calibrated(session, table, where, own, unrelated, earlier)
    last = torch.full((len(trained.fresh),), len(trained.shards) - 1)
    memory = wise.SideMemory(
        trained.shards,
        where,
        table,
        torch.cat([old.span, _spans(session, trained.fresh)]),
        torch.cat([old.shard_of, last]),
        calibration.threshold,
    )
    return wise.Release(
        session.site,
        memory,
        ids,
        session.config.model.name,
        session.base_sha256,
        calibration,
        trained.shard_facts,
    )


def _nothing(session: Session, where: wise.Space) -> wise.SideMemory:
    """Return a memory without facts, to begin with."""
    none = torch.zeros(0, dtype=torch.long)
    keys = wise.Keys(torch.zeros(0, where.width), none)
    return wise.SideMemory((), where, keys, none, none, 1.0)


def _fresh_keys(problem: wise.Problem | None, place: dict[int, int], session: Session) -> FactKeys:
    """Return the raw keys of the facts that were captured for this candidate."""
    if problem is None:
        none = torch.zeros(0, dtype=torch.long)
        return FactKeys(torch.zeros(0, session.site.d_in), none, none)
    fact = torch.tensor([place[e.fact] for e in problem.examples])
    prompt = torch.tensor([e.phrasing for e in problem.examples])
    return FactKeys(problem.keys, fact, prompt)


def _spans(session: Session, facts: Sequence[FactText]) -> torch.Tensor:
    lengths = [len(wise.answer_tokens(session.tokenizer, fact.object)) for fact in facts]
    return torch.tensor(lengths, dtype=torch.long)
