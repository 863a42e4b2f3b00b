"""How full a shard is, predicted from the keys of its facts before anything is trained.

What is written at key k_i shows at key k_j in the share p(k_i, k_j) = k_i' C^-1 k_j / k_i' C^-1 k_i
of its size, C being the second moment of unrelated inputs (Knowledge in Superposition, Hu et al.,
arXiv 2408.07413). A fact's keys are here the mean inputs of the edited matrix at each token of its
answer (`Problem.fact_inputs`). Where both keys produce the same token, what shows helps; where they
don't, it has to be overcome. The *interference* of fact f with fact g is the sum of p^2 from the
keys of f to those keys of g that produce other tokens, the mean over the keys of g: the energy that
f's change puts on g to no good, beside g's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: ridge on C, relative to its mean diagonal; .01 to 1 rank facts and sizes alike
RIDGE = 0.1
ROWS = 512  #: keys that are compared with all others at once; bounds memory


@dataclass(frozen=True, slots=True)
class Overlap:
    """What each fact's change is predicted to put on each other; entry (f, g) is f's on g."""

    unlike: Tensor  #: (facts, facts) float64: the interference; the diagonal is 0
    like: Tensor  #: (facts, facts) float64: the same, from keys that produce the same token

    def contested(self, new: Tensor, held: Tensor) -> Tensor:
        """Return the share of what ``new`` facts put on each of ``held`` that is interference.

        new: (n,), held: (m,) indices of facts; returns (m,). Nothing at all is contested by none.
        """
        against = self.unlike[new][:, held].sum(0)
        total = against + self.like[new][:, held].sum(0)
        return against / total.clamp(min=torch.finfo(total.dtype).tiny)


def overlap(keys: Tensor, fact: Tensor, token: Tensor, unrelated: Tensor) -> Overlap:
    """Predict what each fact's change puts on each other fact.

    keys: (n, d_in); fact: (n,) index from 0 of each key's fact, every fact with one at least;
    token: (n,) that each key produces; unrelated: (m, d_in) inputs at positions that no fact is
    asked at.
    """
    count = int(fact.max()) + 1 if len(fact) else 0
    white = _whitened(keys.double(), unrelated.double())
    own = white.square().sum(1).clamp(min=torch.finfo(torch.float64).tiny)
    sums = torch.zeros(2, count, len(keys), dtype=torch.float64)
    for start in range(0, len(keys), ROWS):
        part = slice(start, start + ROWS)
        share = (white[part] @ white.T / own[part, None]).square()
        same = token[part, None] == token[None]
        sums[0].index_add_(0, fact[part], share.masked_fill(same, 0))
        sums[1].index_add_(0, fact[part], share.masked_fill(~same, 0))
    sizes = fact.bincount(minlength=count).clamp(min=1)
    made = []
    for onto in sums:
        total = torch.zeros(count, count, dtype=torch.float64).index_add_(1, fact, onto)
        found: Tensor = total / sizes
        found.fill_diagonal_(0)
        made.append(found)
    return Overlap(*made)


def _whitened(keys: Tensor, unrelated: Tensor) -> Tensor:
    """Return C^-1/2 k for each key (up to a rotation)."""
    size = keys.shape[1]
    moment = unrelated.T @ unrelated / max(1, len(unrelated))
    scale = float(moment.diagonal().mean()) or 1.0
    moment.diagonal().add_(RIDGE * scale)
    factor = torch.linalg.cholesky(moment) if len(unrelated) else torch.eye(size).to(keys)
    white: Tensor = torch.linalg.solve_triangular(factor, keys.T, upper=False)
    return white.T


def fullness(between: Tensor, room: float) -> float:
    """Return how full a shard of these facts is: 1 is as many as it can hold.

    between: (facts, facts) of `Overlap.unlike`; room: mean interference at which a shard is full,
    times the share of the matrix's columns that it may write to.
    """
    return float(between.sum(0).mean()) / room if len(between) else 0.0


def packed(between: Tensor, room: float) -> list[list[int]]:
    """Spread facts over few shards of which none is over full; return the facts of each.

    One after another, each fact goes where it interferes least, so that what is alike, such as
    two offices of one country, comes apart.
    """
    shards = 1
    while True:  # a fact does not interfere with itself: alone, each fits
        groups = _spread(between, shards)
        if all(fullness(between[group][:, group], room) <= 1 for group in groups):
            return groups
        shards += 1


def _spread(between: Tensor, shards: int) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(shards)]
    mutual = between + between.T
    burden = torch.zeros(shards, len(between), dtype=between.dtype)  # of joining each group
    for index in range(len(between)):
        chosen = int(burden[:, index].argmin())
        groups[chosen].append(index)
        burden[chosen] += mutual[index]
    return [group for group in groups if group]
