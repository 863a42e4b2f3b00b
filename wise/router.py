"""Decide, for one position at a time, whether a stored fact is being asked for.

A fact's *key* is what enters the edited matrix at the last token of a prompt that asks for it. The
router compares a position with all keys by cosine, after centring and scaling each input dimension
by its spread over many questions. At the highest calibration negative .998 of
unseen phrasings pass and no near miss does (docs/decisions.md compares it with projections).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Space:
    """Where keys are compared."""

    center: Tensor  #: (d_in,) float32
    scale: Tensor  #: (d_in,) float32

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (..., d_in) to unit vectors (..., d_in) float32."""
        return torch.nn.functional.normalize((inputs.float() - self.center) * self.scale, dim=-1)


@dataclass(frozen=True, slots=True)
class Keys:
    """The key table: one row a key, any number of keys a fact."""

    vectors: Tensor  #: (k, d_in) float32, unit length
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
    negatives: int  #: positions that must not fire; neither the space nor a probe saw them
    highest_negative: float
    lowest_key: float  #: what most held-back keys of the stored facts reach
    false_fire: float  #: share of the negatives above the threshold
    false_fire_bound: float  #: 95 % upper bound on the true rate (rule of three when none fired)


def fit_space(inputs: Tensor) -> Space:
    """Fit the space to keys of many unrelated questions, (n, d_in).

    The scale is 1 / (spread + median spread): dividing by the spread alone would blow up the
    dimensions that hardly ever move.
    """
    rows = inputs.double()
    spread = rows.std(0, correction=0)
    scale = 1 / (spread + spread.median()).clamp(min=1e-12)
    return Space(rows.mean(0).float(), (scale / scale.mean()).float())


def prototypes(vectors: Tensor, facts: Tensor, like: float) -> Keys:
    """Reduce each fact's keys to few: a key is dropped when a kept one is within cosine ``like``.

    vectors: (n, d_in) unit length; facts: (n,) index of each. Keeps first occurrences, so the edit
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
    """Return the cosine of the nearest key and its fact for unit ``queries`` (..., d_in).

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
    the share ``lean`` of the way from the highest negative up to the lowest key where they are
    apart. Where they overlap, it is the lowest key, but never below the (1 - ``false_fire``)
    quantile of the negatives.
    """
    top = float(negatives.max()) if len(negatives) else 0.0
    low = float(keys.min()) if len(keys) else 1.0
    if low > top:
        threshold = top + lean * (low - top)
    else:
        threshold = max(low, float(torch.quantile(negatives, 1 - false_fire)))
    fired = int((negatives >= threshold).sum())
    count = max(1, len(negatives))
    return Calibration(threshold, len(negatives), top, low, fired / count, (fired + 3) / count)
