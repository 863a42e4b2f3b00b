"""What a row is in the middle of, kept with the KV cache that the row goes on from.

A row's *state* is one number: no real token yet, no fact in charge, or which fact and how far into
its span (`memory`). A cache carries the states of all positions that it holds, so that they are
cropped, reordered, repeated and copied with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import Cache
else:
    Cache = object  # `Following` is mixed into caches of any kind

SINK = 0  #: state of a row without a real token yet; its first one's activations swamp any match
FREE = 1  #: state of a row where no fact is in charge


@dataclass(slots=True)
class History:
    """The states of all positions that a KV cache holds."""

    memory: str  #: name of the memory whose states they are
    parts: list[Tensor]  #: (batch, n) int64 each; the first column stands before position 0
    seen: int  #: positions; where a cache keeps its length on the device, since the memory saw it

    @property
    def last(self) -> Tensor:
        """The state of each row at its last position, (batch, 1)."""
        part = self.parts[-1]
        return part if part.shape[1] == 1 else part[:, -1:]

    def append(self, states: Tensor) -> None:
        """Add the (batch, width) states of the next positions."""
        self.parts.append(states)
        self.seen += states.shape[1]

    def crop(self, seen: int) -> None:
        """Forget all but the first ``seen`` positions."""
        while self.seen > seen:
            part = self.parts.pop()
            self.seen -= part.shape[1]
            if self.seen < seen:
                self.append(part[:, : seen - self.seen])

    def choose(self, rows: Callable[[Tensor], Tensor]) -> None:
        """Replace the rows by what ``rows`` makes of a (batch, n) tensor of them."""
        self.parts = [rows(torch.cat(self.parts, 1))]


class Following(Cache):
    """Makes a cache's history go through all that happens to the cache's rows.

    Mixed into the class of one cache object, not of all: a wrapper on the object would either keep
    it alive in a cycle or be shared with its deep copies.
    """

    routing: History | None

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows as beams are."""
        super().reorder_cache(beam_idx)
        self._choose(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        super().batch_repeat_interleave(repeats)
        self._choose(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        super().batch_select_indices(indices)
        self._choose(lambda rows: rows[indices.to(rows.device)])

    def reset(self) -> None:
        """Forget all positions."""
        super().reset()  # type: ignore[no-untyped-call]  # not annotated there
        self.routing = None

    def _choose(self, rows: Callable[[Tensor], Tensor]) -> None:
        if self.routing is not None:
            self.routing.choose(rows)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _empty_following, (type(self).__bases__[1],), self.__dict__


@functools.cache
def _following(kind: type) -> type:
    return type(kind.__name__, (Following, kind), {})


def _empty_following(kind: type) -> object:
    """Make the object that a copy or an unpickled cache fills."""
    return object.__new__(_following(kind))


def bind(cache: Any, history: History) -> None:
    """Have ``cache`` carry ``history`` from now on."""
    if not isinstance(cache, Following):
        cache.__class__ = _following(cache.__class__)
    cache.routing = history
