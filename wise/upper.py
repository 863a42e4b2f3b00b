"""The part of the model above the edited layer, run from given hidden states.

The model's own forward is used, with the layers up to the edited one replaced for the call by one
that hands out the given states; so every family's final norm, head and soft-capping is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wise.site import Site


class _Given(nn.Module):
    """Stands for a frozen layer: returns the states it was given, whatever comes in."""

    def __init__(self, states: Tensor, like: nn.Module) -> None:
        super().__init__()
        self.states = states
        # Some families read such an attribute of the layer (Qwen2, Gemma) to choose its mask.
        self.attention_type = getattr(like, "attention_type", "full_attention")

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.states


@contextmanager
def _from_states(model: nn.Module, site: Site, states: Tensor) -> Iterator[None]:
    layers = model.get_submodule(site.layers)
    assert isinstance(layers, nn.ModuleList)
    kept = [layers[i] for i in range(site.layer + 1)]
    try:
        for i, layer in enumerate(kept):
            layers[i] = _Given(states, layer)
        yield
    finally:
        for i, layer in enumerate(kept):
            layers[i] = layer


def is_last(model: nn.Module, site: Site) -> bool:
    """Return whether no layer above the edited one mixes positions, so that each stands alone."""
    layers = model.get_submodule(site.layers)
    assert isinstance(layers, nn.ModuleList)
    return site.layer == len(layers) - 1


def logits(model: nn.Module, site: Site, states: Tensor) -> Tensor:
    """Return next-token logits from hidden states after the edited layer.

    states: (batch, width, d_out), padded at the end. Returns (batch, width, vocabulary), at least
    float32; differentiable in ``states``.
    """
    ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
    with _from_states(model, site, states):
        out: Tensor = model(input_ids=ids, use_cache=False).logits
    return widen(out)


def widen(tensor: Tensor) -> Tensor:
    """Return half precision as float32 and leave float32 and float64 as they are."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
