"""Decide, for one position at a time, whether a stored fact is being asked for.

A fact's *key* is what enters the edited matrix at the last token of a prompt that asks for it. The
router compares a position with all keys by cosine, after centring and scaling each input dimension
by its spread over many questions. A map to few dimensions, learned on questions that no fact of
the release answers, makes that cheap and separates as well as all of them (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Space:
    """Where keys are compared."""

    center: Tensor  #: (d_in,) float32
    scale: Tensor  #: (d_in,) float32; unused where there is a map, which has it folded in
    map: Tensor | None = None  #: (m, d_in) float32, learned; None: keys keep all dimensions

    @property
    def width(self) -> int:
        """Dimensions of a key: m, or d_in without a map."""
        return len(self.center if self.map is None else self.map)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (..., d_in) to unit vectors (..., width) float32."""
        centred = inputs.float() - self.center
        kept = centred * self.scale if self.map is None else nn.functional.linear(centred, self.map)
        return nn.functional.normalize(kept, dim=-1)


@dataclass(frozen=True, slots=True)
class Keys:
    """The key table: one row a key, any number of keys a fact."""

    vectors: Tensor  #: (k, width of the space) float32, unit length
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
    questions: int = 0  #: that the space was fitted to


#: keys of one fact closer than this are one prototype, their mean
ALIKE = 0.6
#: share of the held-back keys that the threshold is not drawn from: a phrasing that is like none
#: of the others says little about those that users will choose
LOW_QUANTILE = 0.25
#: dimensions of a learned map; at 128 it separates as well as the whole inputs, at 64 worse
MAP_WIDTH = 128
#: fewer questions than this teach a map too little
LEAST_QUESTIONS = 100
#: of the map's training: steps, learning rate, temperature, questions' phrasings a step
STEPS, RATE, TEMPERATURE, ROWS = 100, 2e-3, 0.15, 800


def fit_space(inputs: Tensor, question: Tensor | None = None) -> Space:
    """Fit the space to keys of many unrelated questions, (n, d_in).

    The scale is 1 / (spread + median spread): dividing by the spread alone would blow up the
    dimensions that hardly ever move. question: (n,) which question each key asks; where there
    are enough of them, in several phrasings each, a map to few dimensions is learned on top.
    """
    rows = inputs.double()
    spread = rows.std(0, correction=0)
    scale = 1 / (spread + spread.median()).clamp(min=1e-12)
    center, scale = rows.mean(0).float(), (scale / scale.mean()).float()
    asked = 0 if question is None else len(question.unique())
    if question is None or not teaches_a_map(asked, inputs.shape[1]):
        return Space(center, scale)
    learned = _learn_map((inputs.float() - center) * scale, question)
    return Space(center, scale, learned * scale)


def teaches_a_map(questions: int, d_in: int) -> bool:
    """Tell whether so many questions teach a map of inputs of ``d_in`` dimensions."""
    return questions >= LEAST_QUESTIONS and d_in > 2 * MAP_WIDTH


def _learn_map(rows: Tensor, question: Tensor) -> Tensor:
    """Return a map, (MAP_WIDTH, d_in), that brings phrasings of one question together.

    Supervised contrastive loss (Khosla et al. 2020, eq. 2) from the rows' principal directions
    on. Seeded: the same rows give the same bytes on the CPU.
    """
    rows = rows / rows.norm(dim=1).mean().clamp(min=1e-12)
    generator = torch.Generator().manual_seed(0)
    start = torch.linalg.svd(rows, full_matrices=False).Vh[:MAP_WIDTH]
    learned: Tensor = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([learned], lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            chosen = torch.randperm(len(rows), generator=generator)[:ROWS]
            loss = _contrast(rows[chosen] @ learned.T, question[chosen])
            (learned.grad,) = torch.autograd.grad(loss, learned)
            adam.step()
    return learned.detach()


def _contrast(rows: Tensor, question: Tensor) -> Tensor:
    unit = nn.functional.normalize(rows, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    like = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    same = (question[:, None] == question[None]) & ~itself
    chance = (like - like.logsumexp(1, keepdim=True)).masked_fill(~same, 0)
    several = same.any(1)
    loss: Tensor = -(chance.sum(1)[several] / same.sum(1)[several]).mean()
    return loss


def prototypes(vectors: Tensor, facts: Tensor, like: float) -> Keys:
    """Reduce each fact's keys to few: keys that are alike are replaced by their mean.

    vectors: (n, d_in) unit length; facts: (n,) index of each. A key joins the first group of its
    fact whose first member is within cosine ``like``, else it begins a group. One key a fact is
    the rule; a fact asked in ways that the model reads quite differently keeps one for each.
    """
    groups: dict[int, list[list[int]]] = {}
    for row, fact in enumerate(facts.tolist()):
        own = groups.setdefault(fact, [])
        near = vectors[[group[0] for group in own]] @ vectors[row] >= like if own else None
        if near is not None and bool(near.any()):
            own[int(near.int().argmax())].append(row)
        else:
            own.append([row])
    means = [vectors[rows].mean(0) for own in groups.values() for rows in own]
    fact = torch.tensor([f for f, own in groups.items() for _ in own], dtype=torch.long)
    if not means:
        return Keys(vectors, fact)
    return Keys(nn.functional.normalize(torch.stack(means), dim=-1), fact)


def own_matches(vectors: Tensor, facts: Tensor, phrasings: Tensor) -> Tensor:
    """Return how near each key comes to the mean of its fact's keys of *other* phrasings, (m,).

    vectors: (n, d_in) unit length; facts, phrasings: (n,). That is what an unseen phrasing will
    have. Facts of a single phrasing have none.
    """
    found = []
    for fact in facts.unique().tolist():
        rows = (facts == fact).nonzero()[:, 0]
        own, prompt = vectors[rows], phrasings[rows]
        other = (prompt[:, None] != prompt[None]).to(own.dtype)
        if bool(other.any()):
            mean = nn.functional.normalize(other @ own, dim=-1)
            found.append((own * mean).sum(-1))
    return torch.cat(found) if found else torch.ones(0)


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

    keys: (n,) cosines that must fire; negatives: (m,) cosines that must not, but for the share
    ``false_fire``: among thousands of questions some mean a stored fact's to the model, and one
    such must not decide for all. The threshold lies the share ``lean`` of the way from the
    (1 - ``false_fire``) quantile of the negatives up to the lowest key, where that is higher.
    """
    top = float(negatives.max()) if len(negatives) else 0.0
    low = float(keys.min()) if len(keys) else 1.0
    least = float(torch.quantile(negatives, 1 - false_fire)) if len(negatives) else 0.0
    threshold = least + lean * max(0.0, low - least)
    fired = int((negatives >= threshold).sum())
    count = max(1, len(negatives))
    bound = min(1.0, (fired + 3) / count)
    return Calibration(threshold, len(negatives), top, low, fired / count, bound)
