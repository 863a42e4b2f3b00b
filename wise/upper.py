"""The part of the model above the edited layer, run from given hidden states.

The model's own forward is used, with the layers up to the edited one replaced for the call by one
that hands out the given states; so every family's final norm, head and soft-capping is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wise.activations import capture
from wise.errors import UnsupportedModel
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


def require_additive(model: nn.Module, site: Site, sequence: Sequence[int]) -> None:
    """Raise UnsupportedModel unless what the edited matrix adds arrives unchanged after the layer.

    Some families norm the MLP's output before they add it (Gemma 2 and 3) or flatten it (OPT).
    """
    shift = torch.linspace(-1, 1, site.d_out)

    def states(change: float) -> tuple[Tensor, Tensor]:
        def add(module: nn.Module, args: object, out: Tensor) -> Tensor:
            return out + change * shift.to(out)

        handle = model.get_submodule(site.module).register_forward_hook(add)
        try:
            (found,) = capture(model, site, [sequence])
        finally:
            handle.remove()
        return found.inputs, found.hidden

    (inputs, before), (_, after) = states(0.0), states(1.0)
    moved = (after - before).float().cpu()
    size = float(before.float().abs().max()) + 1.0
    if inputs.dim() != 3 or not torch.allclose(moved, shift.expand_as(moved), atol=1e-2 * size):
        raise UnsupportedModel(
            f"{type(model).__name__} does not add {site.module} straight to its residual stream",
            hint="Llama, Mistral, Qwen, Phi-3, GPT-2, GPT-J and GPT-NeoX do",
        )


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
