"""The side memory at work: one module in place of the edited matrix.

Each position of each row is decided by itself: when a stored fact is asked for, the shard that
holds it is added from that position on for the length of the fact's answer. Nothing leaves the
device and no decision depends on the batch, the padding or the KV cache. A position that isn't
routed gets exactly what the main memory computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wise.router import Keys, Space, best_match
from wise.shard import Shard
from wise.site import Site


@dataclass(frozen=True, slots=True)
class SideMemory:
    """All that is added to a model: shards, and the router that chooses among them."""

    shards: tuple[Shard, ...]
    space: Space
    keys: Keys
    span: Tensor  #: (facts,) int64, answer tokens of each fact, its end included
    shard_of: Tensor  #: (facts,) int64, index of the shard that holds each fact
    threshold: float  #: cosine from which a position is routed


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router decided in one forward pass, for the tokens of that pass."""

    cosine: Tensor  #: (batch, width) best match of each position; -1 where never scored
    nearest: Tensor  #: (batch, width) the fact it matched
    active: Tensor  #: (batch, width) bool: the side memory answered here


@dataclass(slots=True)
class _Carry:
    """The routing state of a KV cache after its last token."""

    fact: Tensor  #: (batch,) the last fact that was asked for
    left: Tensor  #: (batch,) positions for which it still answers


class RoutedMemory(nn.Module):
    """Stands where the edited linear map stood, and holds it unchanged as ``main``."""

    span: Tensor
    shard_of: Tensor
    center: Tensor
    scale: Tensor
    vectors: Tensor
    key_fact: Tensor

    def __init__(self, main: nn.Module, memory: SideMemory) -> None:
        super().__init__()
        self.main = main
        self.threshold = memory.threshold
        weight = main.weight
        assert isinstance(weight, Tensor)
        device = weight.device
        for name, value in {
            "span": memory.span,
            "shard_of": memory.shard_of,
            "center": memory.space.center,
            "scale": memory.space.scale,
            "vectors": memory.keys.vectors,
            "key_fact": memory.keys.fact,
        }.items():
            self.register_buffer(name, value.to(device), persistent=False)
        self._count = len(memory.shards)
        for index, shard in enumerate(memory.shards):
            here = shard.to(device)
            self.register_buffer(f"columns_{index}", here.columns, persistent=False)
            self.register_buffer(f"delta_{index}", here.delta, persistent=False)
        self.on = True
        self.decisions: list[Decision] | None = None
        self._scored: Tensor | None = None
        self._cache: object | None = None
        self._carry: weakref.WeakKeyDictionary[Any, _Carry] = weakref.WeakKeyDictionary()

    def begin(self, scored: Tensor, cache: object | None) -> None:
        """Take note of the coming forward pass: which positions may fire, and its KV cache."""
        self._scored, self._cache = scored, cache

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, width, d_in) to (batch, width, d_out)."""
        out: Tensor = self.main(inputs)
        if not self.on or not self._count:
            return out
        fact, active = self._decide(inputs)
        shard = self.shard_of[fact.clamp(min=0)]
        for index in range(self._count):
            columns = self.get_buffer(f"columns_{index}")
            delta = self.get_buffer(f"delta_{index}").float()
            here = (active & (shard == index)).unsqueeze(-1)
            change = (inputs[..., columns].float() @ delta.T).to(out.dtype)
            out = torch.where(here, out + change, out)
        return out

    def _decide(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fact in charge of each position and whether it is, (batch, width) each."""
        unit = Space(self.center, self.scale)(inputs)
        cosine, nearest = best_match(unit, Keys(self.vectors, self.key_fact))
        scored = self._scored
        if scored is None or scored.shape != cosine.shape:
            scored = torch.ones_like(cosine, dtype=torch.bool)
            scored[:, 0] = False  # NOTE: the attention sink's activations swamp any comparison
        scored = scored.to(cosine.device)
        cosine = cosine.masked_fill(~scored, -1.0)
        fired = scored & (cosine >= self.threshold)
        fact, active = self._hold(nearest, fired)
        if self.decisions is not None:
            self.decisions.append(Decision(cosine, nearest, active))
        return fact, active

    def _hold(self, nearest: Tensor, fired: Tensor) -> tuple[Tensor, Tensor]:
        """Keep each trigger on for its fact's span; the latest trigger rules."""
        width = fired.shape[1]
        place = torch.arange(width, device=fired.device).expand_as(fired)
        last = torch.where(fired, place, -1).cummax(1).values
        fact = nearest.gather(1, last.clamp(min=0))
        left = self.span[fact.clamp(min=0)] - (place - last)
        carry = self._carry.get(self._cache) if self._cache is not None else None
        if carry is not None and len(carry.fact) == len(fact):
            before = last < 0
            fact = torch.where(before, carry.fact[:, None], fact)
            left = torch.where(before, carry.left[:, None] - place, left)
        else:
            left = torch.where(last < 0, 0, left)
        if self._cache is not None:
            self._carry[self._cache] = _Carry(fact[:, -1], (left[:, -1] - 1).clamp(min=0))
            self._cache = None  # a strong reference would keep the whole KV cache alive
        return fact, left > 0


def _scored_positions(width: int, past: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """Return which of the last ``width`` positions may fire: real tokens but each row's first."""
    if mask is None or mask.dim() != 2:
        return (torch.arange(past, past + width, device=device) > 0)[None]
    real = mask.to(device).bool()
    return (real & (real.cumsum(1) > 1))[:, -width:]


class Attached:
    """A side memory attached to a model; ``detach()`` puts everything back."""

    def __init__(self, model: nn.Module, site: Site, memory: SideMemory) -> None:
        self.model, self.site, self.memory = model, site, memory
        parent, _, self._name = site.module.rpartition(".")
        self._parent = model.get_submodule(parent)
        self._main = model.get_submodule(site.module)
        if isinstance(self._main, RoutedMemory):
            raise ValueError("this model already has a side memory: detach it first")
        self.module = RoutedMemory(self._main, memory)
        setattr(self._parent, self._name, self.module)
        body = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
        self._hook = body.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, body: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = kwargs.get("inputs_embeds")
        ids = args[0] if args else kwargs.get("input_ids")
        shown = given if given is not None else ids
        assert isinstance(shown, Tensor)
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        mask = mask if isinstance(mask, Tensor) else None
        scored = _scored_positions(shown.shape[1], past, mask, shown.device)
        self.module.begin(scored.expand(shown.shape[:2]), cache)

    def detach(self) -> None:
        """Restore the model bit for bit; a second call does nothing."""
        self._hook.remove()
        if getattr(self._parent, self._name) is self.module:
            setattr(self._parent, self._name, self._main)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Let the bare model answer inside the block."""
        self.module.on = False
        try:
            yield
        finally:
            self.module.on = True

    @contextmanager
    def watched(self) -> Iterator[list[Decision]]:
        """Collect the router's decisions of the forward passes inside the block."""
        seen: list[Decision] = []
        self.module.decisions = seen
        try:
            yield seen
        finally:
            self.module.decisions = None


def attach(model: nn.Module, site: Site, memory: SideMemory) -> Attached:
    """Put ``memory`` beside the model's matrix at ``site``; the model's weights don't change."""
    return Attached(model, site, memory)
