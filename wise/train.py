"""Write facts into a shard: breadth-first, preconditioned by the Gram matrix of the inputs.

All facts, phrasings and contexts of a shard are solved together. With the rows a_i (inputs of the
edited matrix at the positions that produce answer tokens), the state h_i that the matrix's output
is added to and the odds o_i of the target there (`problem.Judgement`, nats), the objective is

    f(D) = 1/2 sum_i max(0, aim - o_i)^2

and one iteration is

    S = sum_i |h_i|^2 (df/dh_i) a_i^T
    M = A^T A + kappa W
    P = -S (M + lambda mean(diag(M)) I)^-1
    D <- D + x P + y Q,        Q: the move before

The inverse makes one step move every position about as far as it asks for, however correlated the
inputs are; |h|^2 undoes the final norm's 1/|h|. W is the scatter of the inputs at one token of one
fact over its phrasings and contexts (`Problem.scatter`): the change is kept out of the directions
in which they differ, as a linear discriminant is (Fisher 1936). That, and pulling the odds to an
aim far above 0, makes an edit hold in contexts that it was not trained in (docs/decisions.md).

x and y are chosen by the loss: the minimiser of f with the odds taken as linear between here and a
trial point, scaled by a trust factor that grows where that prediction holds and shrinks where it
doesn't; a step that raises f is taken back. So there is no step size to tune and no divergence.

The shard's subspace is a seeded random subset of the matrix's input columns, so one Cholesky
factor serves all output rows (WISE's element-wise mask would need one factor a row).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wise.errors import UnsupportedModel
from wise.misfit import reasons
from wise.problem import Judgement, Problem
from wise.shard import Shard, empty_shard

#: the first trial point: so long a move beside the edited matrix's own norm; the others are as
#: long as the last move, so that they tell more of the objective than of rounding
FIRST_LOOK = 1e-2
#: what the ridge is multiplied by every few iterations: what is left to fit then needs exactness,
#: the more so the more facts there are
RIDGE_DECAY, DECAY_EVERY = 1 / 3, 3
LOOK_EVERY = 8  #: iterations between two comparisons with the whole vocabulary
SAMPLE = 2048  #: answer positions that the step is chosen by
#: trust factor at the start; below the least no step helps any more
TRUST, LEAST_TRUST = 0.5, 1e-3
#: a prediction of f's fall holds better than this: trust more; worse than this: trust less
GOOD, POOR = 0.6, 0.25
FEW = 0.5  #: share of positions below which going forward twice is cheaper than back for all
LEAST_FALL = 0.8  #: share of f; where `LOOK_EVERY` iterations gain less, the aim is too high
LEAST_AIM = 0.1  #: nats; what can't be pulled this far doesn't fit


@dataclass(frozen=True, slots=True)
class Training:
    """How a shard is trained."""

    rho: float = 0.8  #: share of the matrix's input columns that a shard may write to
    ridge: float = 0.5  #: lambda; smaller is more exact, larger generalises better
    invariance: float = 100.0  #: kappa; larger holds better in unseen contexts, fits less
    aim: float = 14.0  #: odds (nats) that each answer token is pulled to
    margin: float = 2.0  #: odds (nats) from which it is right; training ends when all are
    iterations: int = 40  #: at most


@dataclass(frozen=True, slots=True)
class Fit:
    """What training came to."""

    shard: Shard
    iterations: int
    loss: float  #: mean cross entropy over answer positions
    unfit: dict[int, str]  #: facts whose answer is not right in every trained prompt, and why


Report = Callable[[int, int, float], None]  #: (iteration, of, loss)


@dataclass(slots=True)
class _Descent:
    """Where the iteration stands."""

    shard: Shard
    at: Judgement
    words: Tensor | None  #: tokens that odds are compared with; None: the vocabulary
    aim: float  #: odds (nats) that are pulled to now
    trust: float = TRUST
    reach: float | None = None  #: Frobenius norm of the next trial point's move
    moved: Tensor | None = None  #: Q, (d_out, c)
    change: Tensor | None = None  #: what Q did to the odds of the sample's positions

    @property
    def few(self) -> bool:
        """Whether few positions fall short of the aim."""
        return float((self.at.odds < self.aim).float().mean()) < FEW


def solve(problem: Problem, start: Shard, how: Training, report: Report | None = None) -> Fit:
    """Train ``start`` (left unchanged) until the odds of every answer token reach the margin.

    Where the aim can't be reached by all, it is lowered for all, and invariance with it: so the
    stragglers are what is left to train. What is returned never has more wrong tokens than the
    start, nor a higher f for as many. Facts that don't fit are reported, not averaged away.
    """
    start = start.to(problem.device)
    gram, scatter = problem.gram(start.columns), problem.scatter(start.columns)
    first = problem.judge(start, how.aim)
    sample = _sample(problem, first)
    descent = _Descent(start, first, first.rivals, how.aim)
    best, done = (start, first), 0
    while done < how.iterations and not _all_right(descent.at, how):
        looked = descent.at
        for _ in range(min(LOOK_EVERY, how.iterations - done)):
            if done % DECAY_EVERY == 0:
                kept = descent.aim / (how.aim or 1.0)
                spread = gram + kept * how.invariance * scatter
                factor = _factor(spread, how.ridge * RIDGE_DECAY ** (done // DECAY_EVERY))
            done += 1
            _step(problem, descent, factor, sample)
            if report:
                report(done, how.iterations, descent.at.loss)
            if _all_right(descent.at, how) or descent.trust < LEAST_TRUST:
                break
        whole = _look(problem, descent, how)
        if _rank(whole, how) < _rank(best[1], how):
            best = (descent.shard, whole)
        if whole.objective(descent.aim) > (1 - LEAST_FALL) * looked.objective(descent.aim):
            descent.aim /= 2
            if descent.aim < _least_aim(whole, how):
                break
            whole, descent.trust = problem.judge(descent.shard, descent.aim), TRUST
        descent.at, descent.words = whole, _union(descent.words, whole.rivals)
    shard, found = best
    return Fit(shard.to(torch.device("cpu")), done, found.loss, reasons(problem, found))


def _look(problem: Problem, descent: _Descent, how: Training) -> Judgement:
    """Compare with the whole vocabulary; what is then all right needs no pull."""
    if _all_right(descent.at, how):
        whole = problem.judge(descent.shard, descent.aim, pull=False)
        if _all_right(whole, how):
            return whole
    return problem.judge(descent.shard, descent.aim, few=descent.few)


def _rank(at: Judgement, how: Training) -> tuple[int, float]:
    """Return what makes one change better than another: fewer wrong tokens, then a lower f."""
    return int((at.lead <= 0).sum()), at.objective(how.aim)


def _least_aim(at: Judgement, how: Training) -> float:
    """Return the lowest aim that is worth trying: the margin, less where a token is wrong."""
    return LEAST_AIM if bool((at.lead <= 0).any()) else how.margin


def _factor(gram: Tensor, ridge: float) -> Tensor:
    """Return the Cholesky factor of the inputs' Gram matrix with its ridge, (c, c).

    A ridge too small for the precision is raised until the matrix can be factored. Raises
    UnsupportedModel where the inputs are not finite.
    """
    if not bool(torch.isfinite(gram).all()):
        raise UnsupportedModel(
            "what enters the edited matrix is not finite",
            hint="load the model in bfloat16 or float32",
        )
    mean, factor, failed = float(gram.diagonal().mean()) or 1.0, gram, True
    while failed:
        raised = gram.clone()
        raised.diagonal().add_(ridge * mean)
        factor, info = torch.linalg.cholesky_ex(raised)
        failed, ridge = bool(info), max(10 * ridge, torch.finfo(gram.dtype).eps)
    return factor


def _sample(problem: Problem, first: Judgement) -> tuple[Problem, Tensor | None]:
    """Return the examples that the step is chosen by, and which of all positions are theirs.

    (n,) bool; None: all of them.
    """
    count = len(problem.examples)
    share = SAMPLE / max(1, len(first.odds))
    if share >= 1:
        return problem, None
    every = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[every[: max(1, round(share * count))]] = True
    return problem.part(chosen), chosen.to(problem.device)[first.example]


def _all_right(at: Judgement, how: Training) -> bool:
    return len(at.odds) == 0 or float(at.odds.min()) >= how.margin


def _union(words: Tensor | None, more: Tensor | None) -> Tensor | None:
    return None if words is None or more is None else torch.cat([words, more]).unique()


def _step(
    problem: Problem, descent: _Descent, factor: Tensor, sample: tuple[Problem, Tensor | None]
) -> None:
    """Take one step, or take it back and trust less when f rises."""
    assert descent.at.pull is not None
    push = -torch.cholesky_solve(descent.at.pull.T, factor).T
    move, fall, change = _chosen(problem, descent, push, sample)
    trial = Shard(descent.shard.columns, descent.shard.delta + move)
    found = problem.judge(trial, descent.aim, few=descent.few, words=descent.words)
    before, after = descent.at.objective(descent.aim), found.objective(descent.aim)
    if not after < before:  # also when it is not a number
        descent.trust, descent.moved, descent.change = descent.trust / 4, None, None
        descent.reach = float(move.norm()) / 4
        return
    held = (before - after) / max(fall * before, 1e-30)
    if held < POOR:
        descent.trust /= 2
    elif held > GOOD:
        descent.trust = min(1.0, 2 * descent.trust)
    descent.shard, descent.at, descent.moved, descent.change = trial, found, move, change
    descent.reach = float(move.norm())


def _chosen(
    problem: Problem, descent: _Descent, push: Tensor, sample: tuple[Problem, Tensor | None]
) -> tuple[Tensor, float, Tensor]:
    """Return the move, the share of f by which it should fall, and what it does to the odds."""
    few, theirs = sample
    here = descent.at.odds if theirs is None else descent.at.odds[theirs]
    reach = FIRST_LOOK * problem.scale if descent.reach is None else descent.reach
    unit = reach / max(float(push.norm()), 1e-30)
    look = Shard(descent.shard.columns, descent.shard.delta + unit * push)
    there = few.judge(look, pull=False, words=descent.words).odds
    slopes, moves = [(there - here) / unit], [push]
    if descent.moved is not None and descent.change is not None:
        slopes.append(descent.change)
        moves.append(descent.moved)
    effect, short = torch.stack(slopes, 1).double(), (descent.aim - here).double()
    best = descent.trust * _minimiser(short, effect)
    change = effect @ best
    left = (short - change).clamp(min=0).square().sum()
    fall = 1 - float(left / short.clamp(min=0).square().sum().clamp(min=1e-30))
    move = torch.stack(moves).mul(best.to(push).view(-1, 1, 1)).sum(0)
    return move, fall, change.to(here.dtype)


def _minimiser(short: Tensor, effect: Tensor) -> Tensor:
    """Return the x that minimises sum(max(0, short - effect x)^2), by Newton's method.

    short: (n,), effect: (n, k), both float64. Piecewise quadratic: a few rounds settle it.
    """
    best = torch.zeros(effect.shape[1], dtype=effect.dtype, device=effect.device)
    for _ in range(8):
        active = (short - effect @ best > 0).to(effect.dtype)
        weighed = effect * active[:, None]
        curve = weighed.T @ effect
        curve.diagonal().add_(1e-9 * curve.diagonal().mean() + 1e-300)
        best = torch.linalg.solve(curve, weighed.T @ short)
    return best


def train_shard(problem: Problem, how: Training, *, seed: int, report: Report | None = None) -> Fit:
    """Solve a new shard, in the random subspace of ``seed``; the model is left unchanged."""
    site = problem.site
    return solve(problem, empty_shard(site.d_in, site.d_out, how.rho, seed), how, report)
