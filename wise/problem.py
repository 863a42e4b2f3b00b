"""The captured examples of a shard: losses and gradients for any change of the edited matrix.

The lower layers run once, at capture; every evaluation runs only the layers above, and where no
layer mixes positions above the edited one, only for the positions that produce answer tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from wise.activations import Activations, capture
from wise.facts import Example
from wise.shard import Shard
from wise.site import Site
from wise.upper import is_last, logits, require_additive, widen

ROWS = 1024  #: positions that go through the head at once; bounds the logits' memory


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a change of the matrix does to the examples that were looked at."""

    loss: float  #: mean cross entropy over answer positions, nats
    pull: Tensor  #: S of `train`, (d_out, c)
    losses: Tensor  #: (examples,) summed over each example's positions; 0 where not looked at
    margin: Tensor  #: (examples,) nats by which the weakest token leads; +inf: not looked at
    weakest: Tensor  #: (examples,) that answer token


@dataclass(slots=True)
class _Positions:
    """Captured sequences, with their positions that produce answer tokens."""

    hidden: Tensor  #: (batch, width, d_out) the residual stream after the layer
    row: Tensor  #: (n,) which sequence each answer position is in
    place: Tensor  #: (n,) where in it
    inputs: Tensor  #: (n, d_in) what enters the edited matrix there
    target: Tensor  #: (n,) the token to be produced
    example: Tensor  #: (n,) index of the example
    is_key: Tensor  #: (n,) whether this is the prompt's last token


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one batch gave."""

    at: _Positions
    inputs: Tensor  #: (n, c)
    changed: Tensor  #: (n, d_out) the residual stream with the change
    out: Tensor  #: (n, vocabulary) logits
    losses: Tensor  #: (n,)
    slope: Tensor  #: (n, d_out) gradient of the summed loss there


class Problem:
    """Examples with everything below the layers above the edited matrix computed once."""

    def __init__(self, model: nn.Module, site: Site, examples: Sequence[Example]) -> None:
        self.model, self.site, self.examples = model, site, examples
        weight = next(model.parameters())
        self.device, self._dtype = weight.device, weight.dtype
        self._alone = is_last(model, site)
        sequences = [e.inputs for e in examples]
        if sequences:
            require_additive(model, site, sequences[0])
        found = [self._positions(batch) for batch in capture(model, site, sequences)]
        self._batches = [p for f in found for p in (_split(f) if self._alone else [f])]

    def _positions(self, batch: Activations) -> _Positions:
        made = [self.examples[index] for index in batch.rows]
        sizes = torch.tensor([len(e.answer) for e in made])
        starts = torch.tensor([len(e.prompt) - 1 for e in made])
        row = torch.arange(len(made)).repeat_interleave(sizes)
        nth = torch.cat([torch.arange(size) for size in sizes.tolist()])
        place = starts[row] + nth
        target = torch.tensor([token for e in made for token in e.answer])
        example = torch.tensor(batch.rows)[row]
        index = [t.to(self.device) for t in (row, place, target, example, nth == 0)]
        row, place, target, example, is_key = index
        hidden, inputs = widen(batch.hidden), widen(batch.inputs[row, place])
        if self._alone:  # each answer position becomes a sequence of its own
            hidden = hidden[row, place].unsqueeze(1)
            row, place = torch.arange(len(row), device=self.device), torch.zeros_like(place)
        return _Positions(hidden, row, place, inputs, target, example, is_key)

    @property
    def keys(self) -> Tensor:
        """Inputs of the edited matrix at each example's last prompt token, (examples, d_in)."""
        keys = torch.empty(len(self.examples), self.site.d_in)
        for at in self._batches:
            keys[at.example[at.is_key].cpu()] = at.inputs[at.is_key].float().cpu()
        return keys

    @property
    def inputs(self) -> Tensor:
        """Inputs of the edited matrix at every answer position, (n, d_in)."""
        return torch.cat([at.inputs for at in self._batches])

    def _passes(self, shard: Shard, only: Tensor | None) -> Iterator[_Pass]:
        """Run the layers above for the examples of ``only`` with ``shard`` in place."""
        for whole in self._batches:
            at = whole if only is None else self._narrowed(whole, only)
            if len(at.row) == 0:
                continue
            inputs = at.inputs[:, shard.columns]
            changed = at.hidden[at.row, at.place] + inputs @ shard.delta.T
            changed.requires_grad_(True)
            out = self._logits(at, changed)
            losses = nn.functional.cross_entropy(out, at.target, reduction="none")
            (slope,) = torch.autograd.grad(losses.sum(), changed)
            yield _Pass(at, inputs, changed.detach(), out.detach(), losses.detach(), slope)

    def _logits(self, at: _Positions, changed: Tensor) -> Tensor:
        """Return the logits at the answer positions, (n, vocabulary)."""
        if self._alone:  # no gathering: an index's gradient would cost as much as the head's
            states = changed.unsqueeze(1).to(self._dtype)
            return logits(self.model, self.site, states).squeeze(1)
        states = at.hidden.index_put((at.row, at.place), changed).to(self._dtype)
        return logits(self.model, self.site, states)[at.row, at.place]

    def _narrowed(self, at: _Positions, only: Tensor) -> _Positions:
        """Leave out positions of other examples; whole batches stay where positions mix."""
        keep = only[at.example]
        if not self._alone:
            return at if bool(keep.any()) else _take(at, keep)
        part = _take(at, keep)
        part.hidden, part.row = at.hidden[keep], torch.arange(len(part.row), device=self.device)
        return part

    def loss_and_slopes(self, shard: Shard) -> tuple[float, Tensor]:
        """Return the mean loss (nats) and the gradient of the summed loss, (d_out, c)."""
        total, count, slopes = 0.0, 0, torch.zeros_like(shard.delta)
        for one in self._passes(shard, None):
            total, count = total + float(one.losses.sum()), count + len(one.slope)
            slopes += one.slope.T @ one.inputs
        return total / count, slopes

    def judge(self, shard: Shard, only: Tensor | None = None) -> Judgement:
        """Judge a change by the examples of ``only``, (examples,) bool; None: by all of them."""
        many = len(self.examples)
        losses = torch.zeros(many, dtype=shard.delta.dtype, device=self.device)
        margin = torch.full_like(losses, float("inf"))
        weakest = torch.zeros(many, dtype=torch.long, device=self.device)
        pull, count = torch.zeros_like(shard.delta), 0
        for one in self._passes(shard, only):
            pull += (one.changed.square().sum(1, keepdim=True) * one.slope).T @ one.inputs
            losses.index_add_(0, one.at.example, one.losses)
            lead = _lead(one.out, one.at.target)
            margin.scatter_reduce_(0, one.at.example, lead, "amin")
            lowest = lead == margin[one.at.example]
            weakest[one.at.example[lowest]] = one.at.target[lowest]
            count += len(one.slope)
        return Judgement(float(losses.sum()) / max(1, count), pull, losses, margin, weakest)


def _lead(out: Tensor, target: Tensor) -> Tensor:
    """Return by how much each target's logit leads the best other one, (n,)."""
    best = out.topk(2, dim=1)
    other = torch.where(best.indices[:, 0] == target, best.values[:, 1], best.values[:, 0])
    return out.gather(1, target[:, None])[:, 0] - other


def _take(at: _Positions, keep: Tensor) -> _Positions:
    """Return some of the positions; their sequences stay as they are."""
    return _Positions(
        at.hidden,
        at.row[keep],
        at.place[keep],
        at.inputs[keep],
        at.target[keep],
        at.example[keep],
        at.is_key[keep],
    )


def _split(at: _Positions) -> list[_Positions]:
    """Cut positions that stand alone into pieces of ``ROWS``."""
    parts = zip(*(getattr(at, f.name).split(ROWS) for f in fields(at)), strict=True)
    pieces = [_Positions(*part) for part in parts]
    for piece in pieces:
        piece.row = torch.arange(len(piece.row), device=piece.row.device)
    return pieces
