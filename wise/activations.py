"""Run the frozen part of the model once: record what enters the edited matrix and what leaves.

Everything below the edited matrix is constant, so training needs the lower layers only once an
example. Contains no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wise.site import Site

#: padded tokens a forward pass; bounds the memory of the lower layers
BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Activations:
    """Activations of one padded batch of sequences at the edited layer."""

    rows: tuple[int, ...]  #: index of each sequence in the caller's list
    inputs: Tensor  #: (batch, width, d_in): what enters the edited matrix
    hidden: Tensor  #: (batch, width, d_out): the residual stream after the layer


class _Stop(Exception):
    """Ends a forward pass after the edited layer; the upper layers aren't needed."""


@contextmanager
def _recording(model: nn.Module, site: Site) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}

    def before_matrix(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen["inputs"] = args[0]

    def after_layer(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen["hidden"] = output if isinstance(output, Tensor) else output[0]
        raise _Stop

    layer = model.get_submodule(f"{site.layers}.{site.layer}")
    handles = (
        model.get_submodule(site.module).register_forward_pre_hook(before_matrix),
        layer.register_forward_hook(after_layer),
    )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def batches_by_length(
    lengths: Sequence[int], budget: int = BATCH_TOKENS, most: int = 256
) -> list[list[int]]:
    """Group indices of like length so that each padded group is within ``budget`` tokens."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        full = not groups or len(groups[-1]) == most
        if full or lengths[index] * (len(groups[-1]) + 1) > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


@torch.no_grad()
def capture(
    model: nn.Module, site: Site, sequences: Sequence[Sequence[int]]
) -> Iterator[Activations]:
    """Yield the activations of all sequences in length-bucketed batches.

    Pads stand at the end, where a causal model's real positions can't see them, so no mask is
    needed and real positions are the same as alone. The model is left as it was.
    """
    device = next(model.parameters()).device
    for rows in batches_by_length([len(s) for s in sequences]):
        width = len(sequences[rows[-1]])
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(sequences[row])] = torch.tensor(sequences[row])
        with _recording(model, site) as seen, suppress(_Stop):
            model(input_ids=ids.to(device), use_cache=False)
        yield Activations(tuple(rows), seen["inputs"], seen["hidden"])


def last_inputs(model: nn.Module, site: Site, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return what enters the edited matrix at each sequence's last token, (n, d_in) float32."""
    keys = torch.empty(len(sequences), site.d_in)
    for batch in capture(model, site, sequences):
        for i, row in enumerate(batch.rows):
            keys[row] = batch.inputs[i, len(sequences[row]) - 1].float().cpu()
    return keys
