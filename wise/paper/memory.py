"""The paper's side memories at work: one module in place of the edited matrix (Algorithm 2).

A prompt is routed as a whole: the mean activation over its tokens decides, at prefill, which
memory answers it and all that is generated from its KV cache. Without a cache every forward pass is
a prompt of its own.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wise.attached import Attached, Decision, Standin
from wise.merging import MERGES
from wise.paper.hyperparameters import Mode, Paper
from wise.paper.losses import activation_indicator, shift, top_one
from wise.paper.shard import PaperShard, merge
from wise.site import Site

#: relative; Eq. 6 asks for *more* than the smallest edit activation, which the very edit that set
#: it never has, and rounding makes an activation depend on the batch (.4 % measured in bfloat16)
SLACK = 1e-2


@dataclass(frozen=True, slots=True)
class PaperMemory:
    """All that is added to a model: its side memories, and the threshold between them and W_v.

    The shards are kept as they were edited, so that each further batch is merged with shards and
    never with a merge.
    """

    batches: tuple[tuple[PaperShard, ...], ...]  #: what each `edit` returned, in order
    mode: Mode
    factor: float = 1.0  #: on epsilon
    merging: str = "ties"  #: a name in `wise.merging.MERGES`
    density: float = 1.0  #: share of a shard's written entries that merging keeps

    @property
    def shards(self) -> tuple[PaperShard, ...]:
        """The shards of all batches."""
        return tuple(shard for batch in self.batches for shard in batch)

    def sides(self, shape: tuple[int, int]) -> tuple[PaperShard, ...]:
        """Return the side memories, each merged from its shards: one, or one a batch."""
        how = Paper(merging=self.merging, density=self.density)
        groups = (self.shards,) if self.mode is Mode.MERGE else self.batches
        return tuple(merge(group, shape, how) for group in groups)

    @property
    def epsilon(self) -> float:
        """The activation from which a side memory answers (Eq. 6): one for all of them.

        The reference code keeps one a side memory; Algorithms 1 and 2 have one.
        """
        return min(shard.epsilon for shard in self.shards) * self.factor * (1 - SLACK)


def assemble(batches: Sequence[Sequence[PaperShard]], site: Site, how: Paper) -> PaperMemory:
    """Return the memory of all batches: one side memory, or one a batch (section 2.3.2).

    Which of the two ``how.mode`` says. batches: what `edit` returned, in order. Raises ValueError
    when they don't fit each other or the site.
    """
    kept = tuple(tuple(batch) for batch in batches)
    memory = PaperMemory(kept, how.mode, how.factor, how.merging, how.density)
    check(memory, site)
    return memory


def check(memory: PaperMemory, site: Site) -> None:
    """Raise ValueError unless all of ``memory`` fits together and its site.

    No mask is drawn for it, so that a forged memory costs no more than the bytes that it has.
    """
    shards = memory.shards
    _require(all(memory.batches) and bool(shards), "a paper memory has at least one shard a batch")
    _require(len({s.rho for s in shards}) == 1, "side memories are of one mask ratio")
    _require(len({s.values.dtype for s in shards}) == 1, "side memories are of one type")
    for shard in shards:
        _require(0 < shard.rho <= 1, "a mask ratio is a share of all entries")
        _require(len(shard.seeds) == 1, "a shard that was edited has one mask")
        entries = round(shard.rho * (site.d_out * site.d_in))
        _require(shard.values.shape == (entries,), "a shard has one value a masked entry")
        _require(shard.values.dtype.is_floating_point, "a shard has no real values")
        _require(bool(torch.isfinite(shard.values).all()), "a shard has a non-finite value")
    bounds = [shard.epsilon for shard in shards] + [memory.factor]
    _require(all(math.isfinite(b) and b >= 0 for b in bounds), "epsilon is not an activation")
    _require(memory.merging in MERGES, f"merging is one of {', '.join(MERGES)}")
    _require(0 < memory.density <= 1, "density is a share")


def _require(good: bool, message: str) -> None:
    if not good:
        raise ValueError(message)


class ActivationRouted(Standin):
    """The paper's memory at work, in place of the edited linear map.

    Each row of a batch is decided by itself, on its real tokens, so neither other rows nor padding
    matter, and nothing leaves the device. The reference code decides once for a whole batch, on
    its mean with pads, by ``.item()``, and anew for every token that it decodes.
    """

    def __init__(self, main: nn.Module, memory: PaperMemory, site: Site) -> None:
        super().__init__(main)
        self.threshold = memory.epsilon
        weight = main.weight
        assert isinstance(weight, Tensor)
        shape = (site.d_out, site.d_in)
        sides = memory.sides(shape)
        self._count = len(sides)
        for index, side in enumerate(sides):
            delta = side.dense(shape).to(weight.device)
            self.register_buffer(f"delta_{index}", delta, persistent=False)
        self.side: Tensor | None = None  #: (batch,) the memory in charge of each row; -1 is main
        self._real: Tensor | None = None
        self._kept: Tensor | None = None

    def begin(self, real: Tensor, kept: Tensor | None) -> None:
        """Take note of the coming forward pass: its real tokens, and what its cache decided.

        real: (batch, width) bool; kept: (batch,) int64, None where a prompt begins.
        """
        self._real, self._kept, self.side = real, kept, None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out); a row of the main memory gets exactly its output."""
        out: Tensor = self.main(inputs)
        if not self.on:
            return out
        real = self._real
        assert real is not None, "the model's body announces each forward pass"
        shifts = [shift(inputs, self.get_buffer(f"delta_{i}")) for i in range(self._count)]
        side = self._kept if self._kept is not None else self._decide(shifts, real)
        for index, change in enumerate(shifts):
            here = (side == index)[:, None].expand(real.shape).reshape(*out.shape[:-1], 1)
            out = torch.where(here, out + change.to(out.dtype), out)
        self.side = side
        if self.decisions is not None:
            self.decisions.append(_decision(side, real))
        return out

    def _decide(self, shifts: Sequence[Tensor], real: Tensor) -> Tensor:
        """Return the side memory of each row by its most activated one, (batch,)."""
        rows = [change.view(*real.shape, -1) for change in shifts]
        scores = torch.stack([activation_indicator(change, real) for change in rows])
        return top_one(scores, self.threshold)


def _decision(side: Tensor, real: Tensor) -> Decision:
    """Return what was decided in the keyed memory's terms: no position has a cosine or a fact."""
    none = torch.full(real.shape, -1, device=real.device)
    return Decision(none.float(), none, (side >= 0)[:, None] & real)


class Published(Attached):
    """The paper's memory attached to a model: a row's decision goes with its KV cache.

    When watched, all positions of a row are decided alike; there are no cosines (-1) and no facts
    (-1).
    """

    module: ActivationRouted

    def __init__(self, model: nn.Module, site: Site, memory: PaperMemory) -> None:
        super().__init__(model, site, lambda main: ActivationRouted(main, memory, site))
        self._sides: weakref.WeakKeyDictionary[Any, Tensor] = weakref.WeakKeyDictionary()

    def _begin(self, shown: Tensor, mask: object, cache: Any) -> None:
        batch, width = shown.shape[:2]
        real = torch.ones(batch, width, dtype=torch.bool, device=shown.device)
        if isinstance(mask, Tensor) and mask.dim() == 2:
            real = mask[:, -width:].to(shown.device).bool()
        kept = self._sides.get(cache) if cache is not None else None
        self.module.begin(real, kept if kept is not None and len(kept) == batch else None)

    def _end(self, cache: Any) -> None:
        if cache is not None and self.module.side is not None:
            self._sides[cache] = self.module.side


def attach(model: nn.Module, site: Site, memory: PaperMemory) -> Published:
    """Put ``memory`` beside the model's matrix at ``site``; the model's weights don't change.

    Raises ValueError where a memory stands there already.
    """
    return Published(model, site, memory)
