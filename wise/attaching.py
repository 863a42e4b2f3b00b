"""Attach a memory of either kind, keyed or the paper's. Contains no routing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wise.attached import Attached
from wise.history import Following, History, bind
from wise.memory import RoutedMemory, SideMemory
from wise.paper import memory as published
from wise.paper.memory import PaperMemory
from wise.passes import Pass, opening, real_tokens
from wise.site import Site


class Keyed(Attached):
    """A keyed memory attached to a model: each row's state goes with its KV cache."""

    module: RoutedMemory
    _history: History | None = None

    def _begin(self, shown: Tensor, mask: object, cache: Any) -> None:
        batch, width = shown.shape[:2]
        past = 0 if cache is None else cache.get_seq_length()
        self._history = self._history_of(cache, past, batch)
        if self._history is None:
            first = opening(batch, past, mask, shown.device)
            length = past if isinstance(past, int) else 0
            self._history = History(self.module.name, [first.expand(-1, 1 + length)], length)
        real = real_tokens(mask, past, batch, width)
        self.module.begin(Pass(batch, width, self._history.last, real))

    def _history_of(self, cache: Any, past: int | Tensor, batch: int) -> History | None:
        """Return the states of the cache's ``past`` positions, if this memory made them."""
        history: History | None = getattr(cache, "routing", None)
        if history is None or history.memory != self.module.name:
            return None
        if history.last.shape[0] != batch:
            return None
        if isinstance(past, int):
            if past == 0 or past > history.seen:
                return None
            history.crop(past)
        return history

    def _end(self, cache: Any) -> None:
        states, history = self.module.end(), self._history
        self._history = None
        if cache is None:
            return
        if history is not None and states is not None:
            history.append(states)
            bind(cache, history)
        elif isinstance(cache, Following):  # what passes while the memory is off ends every span
            cache.routing = None


def attach(model: nn.Module, site: Site, memory: SideMemory | PaperMemory) -> Attached:
    """Put ``memory`` beside the model's matrix at ``site``; the model's weights don't change.

    Raises ValueError where a memory stands there already.
    """
    if isinstance(memory, PaperMemory):
        return published.attach(model, site, memory)
    return Keyed(model, site, lambda main: RoutedMemory(main, memory))
