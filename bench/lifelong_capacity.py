"""How well the capacity meter predicts what is lost: ``python -m bench.lifelong_capacity``.

Two checks. Of pairs: the change of one shard's facts is laid over another's, and the odds (nats)
that each held fact then loses are compared with the share of what is put on it that the meter had
predicted to be interference. Of sizes: ever more facts are
written into one shard, and its predicted fullness is put beside what it still answers in unseen
contexts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

import wise
from bench.edit_world import World, edits, load, probes
from daemon.config import default_file
from daemon.config import load as load_config
from wise.scoring import evaluate
from wise.shard import Shard

HELD, NEW = 100, 100  #: facts whose loss is measured, facts that are laid over them
SIZES = (50, 100, 150, 200, 300)
MAX_TOKENS = 40
TEXT_TOKENS = 64


def unrelated(here: World, made: wise.EditSet) -> Tensor:
    """Return inputs at positions that no fact is asked at, (n, d_in)."""
    prompts = [list(here.tokenizer(p)["input_ids"]) for p in made.negatives]
    texts = [list(here.tokenizer(t)["input_ids"][:TEXT_TOKENS]) for t in made.texts]
    rows = [wise.last_inputs(here.model, here.site, prompts)]
    for batch in wise.capture(here.model, here.site, texts):
        rows += [batch.inputs[i, 1 : len(texts[r])].float() for i, r in enumerate(batch.rows)]
    return torch.cat(rows)


def ranks(values: Tensor) -> Tensor:
    """Return the place of each value in rising order, (n,) float64."""
    return values.argsort().argsort().double()


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rho of two (n,) without ties."""
    return float(torch.corrcoef(torch.stack([ranks(one), ranks(other)]))[0, 1])


def of_pairs(here: World) -> dict[str, float]:
    """Lay one shard's change over another's facts; compare predicted and measured loss."""
    made = edits(here, HELD + NEW)
    problem = made.problem(here.model, here.tokenizer, here.site)
    owner = torch.tensor([e.fact for e in problem.examples])
    between = wise.overlap(*problem.fact_inputs(), unrelated(here, made))
    held = problem.part(owner < HELD)
    own = wise.train_shard(held, wise.Training(), seed=1).shard
    new = wise.train_shard(problem.part(owner >= HELD), wise.Training(), seed=2).shard
    d_in = here.site.d_in
    both = Shard(torch.arange(d_in), own.dense(d_in) + new.dense(d_in))
    before, after = held.judge(own, pull=False), held.judge(both, pull=False)
    place = owner[after.example]
    count = place.bincount(minlength=HELD).clamp(min=1)
    lost = (before.odds - after.odds).double()
    measured = torch.zeros(HELD, dtype=torch.float64).index_add_(0, place, lost) / count
    predicted = between.contested(torch.arange(HELD, HELD + NEW), torch.arange(HELD))
    order = predicted.argsort()
    least, most = order[: HELD // 4], order[-HELD // 4 :]
    return {
        "rank_correlation": round(rank_correlation(predicted, measured), 3),
        "nats_lost": round(float(measured.mean()), 2),
        "nats_lost_by_least": round(float(measured[least].mean()), 2),
        "nats_lost_by_most": round(float(measured[most].mean()), 2),
    }


def of_sizes(here: World, sizes: Sequence[int], room: float) -> None:
    """Write ever more facts into one shard; put its predicted fullness beside what it answers."""
    for size in sizes:
        made = edits(here, size)
        problem = made.problem(here.model, here.tokenizer, here.site)
        between = wise.overlap(*problem.fact_inputs(), unrelated(here, made)).unlike
        full = wise.fullness(between, room)
        fit = wise.train_shard(problem, wise.Training(), seed=size)
        release = made.release(problem, here.tokenizer, [fit.shard])
        memory = wise.attach(here.model, here.site, release.memory)
        asked = [p for p in probes(here, size) if not p.kind.startswith("locality")]
        scores = evaluate(here.model, here.tokenizer, memory, asked, MAX_TOKENS)
        memory.detach()
        shares = {kind: round(score.share, 4) for kind, score in scores.items()}
        row = {"facts": size, "fullness": round(full, 3), "iterations": fit.iterations}
        row |= {"unfit": len(fit.unfit), **shares}
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def check() -> dict[str, float]:
    """Print both checks; return the one of pairs."""
    here, section = load(), load_config(default_file()).wise
    room = section.shard_room * section.rho
    pairs = of_pairs(here)
    print("meter  " + "  ".join(f"{k} {v}" for k, v in pairs.items()), flush=True)
    of_sizes(here, SIZES, room)
    return pairs


if __name__ == "__main__":
    print(json.dumps(check()))
