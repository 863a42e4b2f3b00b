"""Decide, for one position at a time, whether a stored fact is being asked for.

A fact's *key* is what enters the edited matrix at the last token of a prompt that asks for it. The
router compares a position with all keys after a linear projection that whitens the directions in
which phrasings of one question differ, so that cosine measures *what* is asked and not *how*. The
projection is linear discriminant analysis (Fisher 1936; Rao 1948) on questions that the base
model was asked, none of them a probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Projection:
    """Where keys are compared."""

    center: Tensor  #: (d_in,) float32
    matrix: Tensor  #: (d_in, p) float32

    def __call__(self, inputs: Tensor) -> Tensor:
        """Project (..., d_in) to unit vectors (..., p) float32."""
        return torch.nn.functional.normalize((inputs.float() - self.center) @ self.matrix, dim=-1)


@dataclass(frozen=True, slots=True)
class Keys:
    """The key table: one row a key, any number of keys a fact."""

    vectors: Tensor  #: (k, p) float32, unit length
    fact: Tensor  #: (k,) int64, index into the release's facts

    def __len__(self) -> int:
        return len(self.fact)

    def without(self, facts: Tensor) -> Keys:
        """Return the table without the keys of ``facts`` (indices)."""
        keep = ~torch.isin(self.fact, facts)
        return Keys(self.vectors[keep], self.fact[keep])


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the threshold was chosen, from negatives that no probe shares."""

    threshold: float  #: cosine from which a position is routed to the side memory
    negatives: int  #: positions that must not fire, seen by neither projection nor probes
    highest_negative: float
    lowest_key: float  #: the lowest best match of a held-back key of a stored fact
    false_fire: float  #: share of the negatives above the threshold
    false_fire_bound: float  #: 95 % upper bound on the true rate (rule of three when none fired)


def fit_projection(inputs: Tensor, labels: Tensor, width: int, shrink: float = 0.1) -> Projection:
    """Fit the projection to labelled keys of many questions, several phrasings each.

    inputs: (n, d_in); labels: (n,) question of each row; ``width`` directions are kept;
    ``shrink`` is the share of the mean variance added to each direction of the within-question
    covariance (float64 inside: the eigenvalues span ten orders of magnitude).
    """
    rows = inputs.double()
    center = rows.mean(0)
    rows = rows - center
    count = int(labels.max()) + 1
    sums = torch.zeros(count, rows.shape[1], dtype=rows.dtype).index_add(0, labels, rows)
    means = sums / torch.bincount(labels, minlength=count).clamp(min=1)[:, None]
    within = rows - means[labels]
    covariance = within.T @ within / len(rows)
    covariance.diagonal().add_(shrink * covariance.diagonal().mean())
    factor = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)  # (d_in, questions)
    basis = torch.linalg.svd(whitened, full_matrices=False).U[:, :width]
    matrix = torch.linalg.solve_triangular(factor.T, basis, upper=True)
    return Projection(center.float(), matrix.float().contiguous())


def prototypes(vectors: Tensor, facts: Tensor, like: float) -> Keys:
    """Reduce each fact's keys to few: a key is dropped when a kept one is within cosine ``like``.

    vectors: (n, p) unit length; facts: (n,) index of each. Keeps first occurrences, so the edit
    prompt's own key always stays.
    """
    keep: list[int] = []
    of_fact: dict[int, list[int]] = {}
    for row, fact in enumerate(facts.tolist()):
        kept = of_fact.setdefault(fact, [])
        if kept and (vectors[kept] @ vectors[row]).max() >= like:
            continue
        kept.append(row)
        keep.append(row)
    return Keys(vectors[keep], facts[keep])


def best_match(queries: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
    """Return the cosine of the nearest key and its fact for unit ``queries`` (..., p).

    An empty table matches nothing: cosine -1, fact -1.
    """
    if len(keys) == 0:
        shape = queries.shape[:-1]
        return torch.full(shape, -1.0, device=queries.device), torch.full(
            shape, -1, dtype=torch.long, device=queries.device
        )
    cosine, nearest = (queries @ keys.vectors.T).max(-1)
    return cosine, keys.fact[nearest]


def calibrate(keys: Tensor, negatives: Tensor, false_fire: float, lean: float) -> Calibration:
    """Choose the threshold from the best matches of held-back keys and of negatives.

    keys: (n,) cosines that must fire; negatives: (m,) cosines that must not. The threshold lies
    the share ``lean`` of the way from the negatives up to the keys where they are apart; where
    they overlap, it is the (1 - ``false_fire``) quantile of the negatives.
    """
    top = float(negatives.max()) if len(negatives) else 0.0
    low = float(keys.min()) if len(keys) else 1.0
    if low > top:
        threshold = top + lean * (low - top)
    else:
        threshold = float(torch.quantile(negatives, 1 - false_fire))
    fired = int((negatives >= threshold).sum())
    count = max(1, len(negatives))
    return Calibration(threshold, len(negatives), top, low, fired / count, (fired + 3) / count)
