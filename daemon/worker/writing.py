"""Write facts into new shards: examples in contexts, how many shards they need, training."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import wise
from daemon.messages import Build, FactText, ShardMade
from daemon.worker.session import Session
from wise.train import Report

TURNS = 100  #: earlier questions, with the model's own answers, used as second-turn contexts

#: (captured facts of one shard, seed, reports where it stands) -> what training came to
Solve = Callable[[wise.Problem, int, Report], wise.Fit]


@dataclass(frozen=True, slots=True)
class Written:
    """New shards, and what training them came to."""

    facts: tuple[FactText, ...]
    problem: wise.Problem  #: the captured examples of all facts
    shard_of: tuple[int, ...]  #: of each fact, among the new shards
    fits: tuple[wise.Fit, ...]  #: one a shard
    made: tuple[ShardMade, ...]  #: one a shard

    def shards(self, dtype: torch.dtype) -> tuple[wise.Shard, ...]:
        """Return the new shards as they are stored."""
        return tuple(fit.shard.stored_as(dtype) for fit in self.fits)

    @property
    def unfit(self) -> dict[int, str]:
        """Facts that training could not reach, and why."""
        return {fact: why for fit in self.fits for fact, why in fit.unfit.items()}

    @property
    def figures(self) -> dict[str, float]:
        """Return the most iterations, and the mean loss over facts, that a shard ended with."""
        solved = sum(one.solved for one in self.made)
        losses = [fit.loss * one.solved for fit, one in zip(self.fits, self.made, strict=True)]
        most = max((fit.iterations for fit in self.fits), default=0)
        return {"iterations": float(most), "loss": sum(losses) / max(1, solved)}


def contexts(session: Session, request: Build) -> wise.Contexts:
    """Return the texts that training and calibration put before prompts; probes use others."""
    rng = random.Random(session.config.wise.seed)
    pool = [q.prompts[rng.randrange(len(q.prompts))] for q in request.questions.fit[:TURNS]]
    answers = session.bare(pool)
    turns = [f"{p} {a}" for p, a in zip(pool, answers, strict=True) if a]
    return wise.Contexts(session.background.train, tuple(turns))


def examples(
    session: Session, facts: Sequence[FactText], around: wise.Contexts
) -> list[wise.Example]:
    """Return every fact in every phrasing and context."""
    texts = [wise.Fact(f.id, f.prompts, f.object) for f in facts]
    seed = session.config.wise.seed
    return wise.examples(texts, session.tokenizer, around, max_tokens=session.max_tokens, seed=seed)


def training(session: Session) -> wise.Training:
    """Return how shards are trained, as it is configured."""
    section = session.config.wise
    return wise.Training(
        rho=section.rho,
        ridge=section.ridge,
        invariance=section.invariance,
        aim=section.aim_nats,
        margin=section.margin_nats,
        iterations=section.max_iterations,
    )


def write(
    session: Session,
    request: Build,
    facts: Sequence[FactText],
    around: wise.Contexts,
    unrelated: Tensor,
    solve: Solve | None = None,
) -> Written:
    """Write ``facts``, at least one, into as few new shards as the meter says can hold them.

    unrelated: (n, d_in) inputs at positions that no fact is asked at; solve: how one shard comes
    about, by default from an empty one.
    """
    problem = _captured(session, facts, around)
    between = wise.overlap(*problem.fact_inputs(), unrelated).unlike
    room = session.config.wise.shard_room * session.config.wise.rho
    groups = wise.packed(between, room)
    place = {index: shard for shard, group in enumerate(groups) for index in group}
    shard_of = tuple(place[index] for index in range(len(facts)))
    held = {fact.id: shard for fact, shard in zip(facts, shard_of, strict=True)}
    holds = torch.tensor([held[example.fact] for example in problem.examples])
    if solve is None or len(groups) > 1:  # a start that holds other groups' facts helps none
        solve = _anew(training(session))

    def report(done: int, total: int, loss: float) -> None:
        session.report("training the shard", done, total)

    fits = []
    for shard in range(len(groups)):
        part = problem if len(groups) == 1 else problem.part(holds == shard)
        fits.append(solve(part, _seed(session, request, shard), report))
    made = [
        ShardMade(solved=len(group), fullness=wise.fullness(between[group][:, group], room))
        for group in groups
    ]
    return Written(tuple(facts), problem, shard_of, tuple(fits), tuple(made))


def _captured(session: Session, facts: Sequence[FactText], around: wise.Contexts) -> wise.Problem:
    session.report("capturing activations", 0, len(facts))
    made = examples(session, facts, around)
    section = session.config.wise
    mixed = None if section.mixed_precision else False
    return wise.Problem(
        session.model, session.site, made, section.activation_budget_mb, mixed=mixed
    )


def _anew(how: wise.Training) -> Solve:
    def solve(problem: wise.Problem, seed: int, report: Report) -> wise.Fit:
        return wise.train_shard(problem, how, seed=seed, report=report)

    return solve


def _seed(session: Session, request: Build, shard: int) -> int:
    """Return the seed of a candidate's new shard; no two of a store share one."""
    return random.Random(f"{session.config.wise.seed}:{request.number}:{shard}").getrandbits(48)
