"""What the memories of both kinds share: a module in the matrix's place, and the way back.

Contains no routing.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wise.site import Site

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router decided in one forward pass, for the tokens of that pass."""

    cosine: Tensor  #: (batch, width) best match of each position; -1 where never scored
    nearest: Tensor  #: (batch, width) the fact it matched
    active: Tensor  #: (batch, width) bool: the side memory answered here


def eager(function: _Function) -> _Function:
    """Keep compilers out: a graph would be built anew for every length of the history."""
    disabled: _Function = torch.compiler.disable(function)
    return disabled


class Standin(nn.Module):
    """Stands where the edited linear map stood, and holds it unchanged as ``main``."""

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.on = True  #: whether the memory answers; else the main memory does
        self.decisions: list[Decision] | None = None  #: those of each pass, where they are watched


class Attached(ABC):
    """A side memory attached to a model; ``detach()`` puts everything back."""

    def __init__(
        self, model: nn.Module, site: Site, stand_in: Callable[[nn.Module], Standin]
    ) -> None:
        """Put what ``stand_in`` makes of the edited map in its place.

        Raises ValueError where a memory stands there already.
        """
        parent, _, self._name = site.module.rpartition(".")
        self._parent = model.get_submodule(parent)
        self._main = model.get_submodule(site.module)
        if isinstance(self._main, Standin):
            raise ValueError("this model already has a side memory: detach it first")
        self.module: Standin = stand_in(self._main)
        setattr(self._parent, self._name, self.module)
        # NOTE: not `base_model_prefix`: OPT's head calls the decoder inside its base model
        body = model.get_submodule(site.layers.rpartition(".")[0])  # what runs the layers
        self._names = tuple(inspect.signature(body.forward).parameters)
        self._hooks = (
            body.register_forward_pre_hook(self._before, with_kwargs=True),
            body.register_forward_hook(self._after, with_kwargs=True),
        )

    @eager
    def _before(self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = self._named(args, kwargs)
        shown = given.get("inputs_embeds")
        shown = given.get("input_ids") if shown is None else shown
        assert isinstance(shown, Tensor)
        self._begin(shown, given.get("attention_mask"), given.get("past_key_values"))

    @eager
    def _after(
        self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        cache = self._named(args, kwargs).get("past_key_values")
        self._end(_cache_of(output) if cache is None else cache)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**dict(zip(self._names, args, strict=False)), **kwargs} if args else kwargs

    @abstractmethod
    def _begin(self, shown: Tensor, mask: object, cache: Any) -> None:
        """Tell the module what is known of a forward pass before it runs.

        shown: (batch, width) or (batch, width, d) what the body is given; mask: its attention mask
        of any kind, or None; cache: its KV cache, or None.
        """

    @abstractmethod
    def _end(self, cache: Any) -> None:
        """Keep what the module decided with the KV cache, for what goes on from it.

        cache: that of the pass, or None.
        """

    def detach(self) -> None:
        """Restore the model bit for bit; a second call does nothing."""
        for hook in self._hooks:
            hook.remove()
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


def _cache_of(output: Any) -> Any:
    """Return the KV cache in what the body returned, an object or a tuple, if there is one."""
    if isinstance(output, tuple):
        return next((part for part in output if hasattr(part, "get_seq_length")), None)
    return getattr(output, "past_key_values", None)
