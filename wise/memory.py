"""The side memory at work: one module in place of the edited matrix.

Each position of each row is decided by itself: when a stored fact is asked for, the shard that
holds it is added from that position on for the length of the fact's answer. No decision depends on
the batch, the padding or the KV cache, and on an accelerator nothing leaves the device. A position
that isn't routed gets exactly what the main memory computed.

Where a row stands is one number, its state (`history`); `_tables` says where each leads.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from wise.attached import Decision, Standin, eager
from wise.history import FREE, SINK
from wise.passes import Pass, unannounced
from wise.router import Keys, Space
from wise.shard import Shard


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
class _Tables:
    """Where each state leads: SINK, FREE, then as many states a fact as its span has positions."""

    left: Tensor  #: (states,) int64: positions for which it goes on to the next, this one included
    after: Tensor  #: (states,) int64: the state of the next position unless a fact is asked for
    bar: Tensor  #: (states,) float32: cosine from which the next position asks for one
    shard: Tensor  #: (states,) int64: the shard in charge; -1 where none is
    entry: Tensor  #: (k,) int64: the state in which each key puts the position that matches it


def _tables(memory: SideMemory) -> _Tables:
    span = memory.span
    ends = span.cumsum(0) + FREE + 1
    fact = torch.arange(len(span), device=span.device).repeat_interleave(span)
    state = torch.arange(len(fact) + FREE + 1, device=span.device)
    none = state[: FREE + 1]
    left = torch.cat([torch.ones_like(none), ends[fact] - state[FREE + 1 :]])
    bar = torch.full(state.shape, memory.threshold, device=span.device)
    bar[SINK] = torch.inf
    return _Tables(
        left=left,
        after=torch.where(left > 1, state + 1, FREE),
        bar=bar,
        shard=torch.cat([torch.full_like(none, -1), memory.shard_of[fact]]),
        entry=torch.where(span > 0, ends - span, FREE)[memory.keys.fact],
    )


class RoutedMemory(Standin):
    """Stands where the edited linear map stood, and holds it unchanged as ``main``.

    Its tensors follow the model from device to device but keep their precision.
    """

    def __init__(self, main: nn.Module, memory: SideMemory) -> None:
        super().__init__(main)
        self.name = uuid.uuid4().hex  # tells memories apart, in stored caches too
        self._under_way: list[Pass] = []  # at most one; a module sets its attributes slowly
        self._empty = not memory.shards or not len(memory.keys)
        weight = main.weight
        assert isinstance(weight, Tensor)
        for name, value in _tensors(memory, _wide(weight.dtype)).items():
            self.register_buffer(name, value, persistent=False)
        # NOTE: a weight that is offloaded between passes is on the meta device meanwhile
        self._move(memory.span.device if weight.is_meta else weight.device)

    def _move(self, device: torch.device) -> None:
        """Bring all tensors to ``device`` and to hand: a module looks its buffers up slowly."""
        for name, value in self._buffers.items():
            self._buffers[name] = value if value is None else value.to(device)
        held: dict[str, Any] = self._buffers
        self._device = device
        #: work only on rows that a shard answers, which the host then has to know: on the CPU it
        #: does, elsewhere it would have to wait
        self.selects = device.type == "cpu"
        self._vectors, self._fact = held["vectors"], held["fact"]
        self._space = Space(**{f.name: held[f"space_{f.name}"] for f in fields(Space)})
        self._tables = _Tables(**{f.name: held[f.name] for f in fields(_Tables)})
        self._shards: list[Shard] = []
        while f"delta_{len(self._shards)}" in held:
            index = len(self._shards)
            self._shards.append(Shard(held[f"columns_{index}"], held[f"delta_{index}"]))

    def _apply(self, fn: Any, recurse: bool = True) -> RoutedMemory:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # not annotated there
        device = self.get_buffer("fact").device
        self._buffers.update(kept)
        self._move(device)
        return self

    def begin(self, coming: Pass) -> None:
        """Take note of the coming forward pass."""
        self._under_way[:] = [coming]

    def end(self) -> Tensor | None:
        """Return the states of the positions of the pass, or None if the memory wasn't at work."""
        return self._under_way.pop().states if self._under_way else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, width, d_in) or (batch * width, d_in) to the same with d_out."""
        out: Tensor = self.main(inputs)
        if not self.on or self._empty:
            return out
        kind = out.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # cosines and changes stay float32
                return self._routed(inputs, out)
        return self._routed(inputs, out)

    @eager
    def _routed(self, inputs: Tensor, out: Tensor) -> Tensor:
        """Return ``out`` with the shards' changes where they are in charge."""
        if out.device != self._device:
            self._move(out.device)
        rows = inputs.reshape(-1, inputs.shape[-1]).to(out.device)  # (n, d_in)
        [coming] = self._under_way or [unannounced(inputs)]
        if coming.batch * coming.width != rows.shape[0]:
            coming = unannounced(inputs)
        active = self._decide(rows, coming).view(-1)
        assert coming.states is not None
        shard = self._tables.shard[coming.states].view(-1)  # (n,)
        flat = out.reshape(-1, out.shape[-1])  # (n, d_out)
        add = self._add_where if self.selects else self._add_everywhere
        return add(rows, flat, active, shard).view(out.shape)

    def _add_where(self, rows: Tensor, flat: Tensor, active: Tensor, shard: Tensor) -> Tensor:
        """Return (n, d_out) with the changes of the (n,) shards at the ``active`` positions."""
        here = active.nonzero()[:, 0]
        if not len(here):
            return flat
        for index in shard[here].unique().tolist():
            at = here[shard[here] == index]
            flat = flat.index_add(0, at, self._change(index, rows[at], flat.dtype))
        return flat

    def _add_everywhere(self, rows: Tensor, flat: Tensor, active: Tensor, shard: Tensor) -> Tensor:
        """Return the same without a look at what is active: computed for all, taken for some."""
        for index in range(len(self._shards)):
            here = active if len(self._shards) == 1 else active & (shard == index)
            flat = torch.where(here[:, None], flat + self._change(index, rows, flat.dtype), flat)
        return flat

    def _change(self, index: int, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what a shard adds for inputs (n, d_in), (n, d_out)."""
        shard, wide = self._shards[index], _wide(rows.dtype)
        given = rows.index_select(1, shard.columns).to(wide)
        return nn.functional.linear(given, shard.delta.to(wide)).to(dtype)

    def _decide(self, rows: Tensor, coming: Pass) -> Tensor:
        """Note the state of each position; return where a shard answers, (batch, width) bool."""
        # NOTE: not `best_match`; while decoding, an operation costs as much as its arithmetic
        cosine, key = (self._space(rows) @ self._vectors).max(-1, keepdim=True)  # (n, 1)
        before, real = coming.before.to(rows.device), coming.real
        if real is not None:
            real = real.to(rows.device, non_blocking=True)
        if coming.width == 1:
            state = self._step(cosine, key, before, real)
        else:
            cosine, key = (each.view(coming.batch, coming.width) for each in (cosine, key))
            state = self._sweep(cosine, key, before, real)
        coming.states = state
        active = state > FREE if real is None else (state > FREE) & real
        if self.decisions is not None:
            cosine = torch.where(_scored(before, real, coming.width), cosine, -1.0)
            self.decisions.append(Decision(cosine, self._fact[key], active))
        return active

    def _step(self, cosine: Tensor, key: Tensor, before: Tensor, real: Tensor | None) -> Tensor:
        """Return the states of a single position; all tensors are (batch, 1).

        The same as `_sweep`, in a third of the operations: decoding does little else.
        """
        tables = self._tables
        fired = cosine >= tables.bar[before]
        state = torch.where(fired, tables.entry[key], tables.after[before])
        return state if real is None else torch.where(real, state, before)

    def _sweep(self, cosine: Tensor, key: Tensor, before: Tensor, real: Tensor | None) -> Tensor:
        """Return the states of many positions, (batch, width); the latest trigger rules.

        before: (batch, 1); the others: (batch, width). Padding has the state of what it follows.
        """
        tables = self._tables
        if real is None:
            real = torch.ones_like(cosine, dtype=torch.bool)
        count = real.cumsum(1)  # a span is counted in real tokens, wherever the padding stands
        fired = _scored(before, real, real.shape[1]) & (cosine >= tables.bar[FREE])
        place = torch.arange(real.shape[1], device=real.device)
        last = torch.where(fired, place, -1).cummax(1).values
        at, fresh = last.clamp(min=0), last >= 0
        begun = torch.where(fresh, tables.entry[key].gather(1, at), before)
        since = count - torch.where(fresh, count.gather(1, at), 0)
        return torch.where(since < tables.left[begun], begun + since, FREE)


def _tensors(memory: SideMemory, wide: torch.dtype) -> dict[str, Tensor | None]:
    """Return all that a memory needs at work, by the names of its buffers."""
    tables = _tables(memory)
    tensors: dict[str, Tensor | None] = {f.name: getattr(tables, f.name) for f in fields(_Tables)}
    tensors |= {f"space_{f.name}": getattr(memory.space, f.name) for f in fields(Space)}
    # NOTE: a single query is compared a third faster with keys in columns, (d_in, k)
    tensors |= {"vectors": memory.keys.vectors.T.contiguous(), "fact": memory.keys.fact}
    for index, shard in enumerate(memory.shards):
        tensors |= {f"columns_{index}": shard.columns, f"delta_{index}": shard.delta.to(wide)}
    return tensors


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which changes are computed for a model of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _scored(before: Tensor, real: Tensor | None, width: int) -> Tensor:
    """Return which positions may fire: real tokens but each row's first. (batch, width) bool."""
    if real is None:
        real = torch.ones(len(before), width, dtype=torch.bool, device=before.device)
    return real & ((before > SINK) | (real.cumsum(1) > 1))
