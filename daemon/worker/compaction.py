"""Rewrite shards of the parent into fewer: levels, as in a log-structured merge tree.

Only values are rewritten. Keys, threshold and all other shards stay as they are, so that each
prompt is routed as before.
"""

from __future__ import annotations

import wise
from daemon.messages import Build, FactText
from daemon.worker import routing, writing
from daemon.worker.session import Session
from daemon.worker.writing import Solve, Written
from wise.train import Report


def rewritten(
    session: Session, request: Build, parent: wise.Release
) -> tuple[wise.Release, Written]:
    """Return the parent with the requested shards rewritten, and what was written."""
    facts = held(request, parent)
    around = writing.contexts(session, request)
    unrelated = routing.negatives(session, request.questions, around)
    warm = None if _holds_dropped(request, parent) else _merged(session, request, parent)
    made = writing.write(session, request, facts, around, unrelated, warm)
    release = parent.rewritten(
        request.rewritten,
        made.shards(session.stored_dtype),
        {fact.id: shard for fact, shard in zip(facts, made.shard_of, strict=True)},
    )
    return release, made


def held(request: Build, parent: wise.Release) -> list[FactText]:
    """Return the facts of the shards to be rewritten, in the parent's order."""
    assert isinstance(parent.memory, wise.SideMemory)
    shard_of = dict(zip(parent.fact_ids, parent.memory.shard_of.tolist(), strict=True))
    return [fact for fact in request.kept if shard_of[fact.id] in request.rewritten]


def _holds_dropped(request: Build, parent: wise.Release) -> bool:
    """Tell whether the shards to be rewritten hold weights of facts that are gone.

    Then they are solved anew in empty shards, so that nothing of those facts survives.
    """
    solved = sum(parent.shard_facts[position] for position in request.rewritten)
    return len(held(request, parent)) < solved


def _merged(session: Session, request: Build, parent: wise.Release) -> Solve:
    """Return how one shard comes of many: their TIES merge, healed."""
    assert isinstance(parent.memory, wise.SideMemory)
    shards = [parent.memory.shards[position] for position in request.rewritten]

    def solve(problem: wise.Problem, seed: int, report: Report) -> wise.Fit:
        return wise.compact(
            problem,
            shards,
            dropped=False,
            density=session.config.wise.ties_density,
            how=writing.training(session),
            seed=seed,
            report=report,
        )

    return solve
