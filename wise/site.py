"""Find the matrix that edits go to: the last linear map of one late MLP (WISE, section 2.2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wise.errors import UnknownFamily

#: names of the MLP's last linear map below a decoder layer, one a family
VALUE_MATRICES = (
    "mlp.down_proj",  # Llama, Mistral, Qwen, Gemma, Phi-3
    "mlp.c_proj",  # GPT-2
    "mlp.fc_out",  # GPT-J
    "mlp.dense_4h_to_h",  # GPT-NeoX
    "fc2",  # OPT
)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a model is edited."""

    module: str  #: dotted name of the edited linear map, e.g. ``model.layers.5.mlp.down_proj``
    layers: str  #: dotted name of the list of decoder layers
    layer: int  #: index of the edited layer
    d_in: int
    d_out: int
    transposed: bool  #: True when the weight is stored (d_in, d_out), as Conv1D does


def locate(model: nn.Module, layer: int = -1, module: str | None = None) -> Site:
    """Return the place to edit: ``module`` if named, else the value matrix of ``layer``.

    Raises UnknownFamily with the candidates when there is none of a known name.
    """
    layers = _decoder_layers(model)
    stack = model.get_submodule(layers)
    assert isinstance(stack, nn.ModuleList)
    if module is None:
        index = range(len(stack))[layer]
        module = next(
            (f"{layers}.{index}.{n}" for n in VALUE_MATRICES if _has(stack[index], n)), None
        )
        if module is None:
            raise _unknown(model, stack[index], f"{layers}.{index}")
    elif not _has(model, module) or not module.startswith(layers + "."):
        raise _unknown(model, stack[layer], f"{layers}.{range(len(stack))[layer]}")
    index = int(module[len(layers) + 1 :].split(".")[0])
    linear = model.get_submodule(module)
    transposed = not isinstance(linear, nn.Linear)
    rows, columns = _weight(linear).shape
    d_in, d_out = (rows, columns) if transposed else (columns, rows)
    return Site(module, layers, index, d_in, d_out, transposed)


def weight_hash(model: nn.Module, site: Site) -> str:
    """Return the sha256 hex of the edited matrix, (d_out, d_in) float32 little-endian bytes.

    The hash names the main memory that a side memory belongs to, so it is taken from the values
    and not from the file they came in.
    """
    weight = _weight(model.get_submodule(site.module)).detach()
    plain = (weight.T if site.transposed else weight).to("cpu", torch.float32).contiguous()
    return hashlib.sha256(plain.numpy().tobytes()).hexdigest()


def _decoder_layers(model: nn.Module) -> str:
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return str(name)
    raise UnknownFamily("the model has no list of decoder layers; is it a causal language model?")


def _has(root: nn.Module, name: str) -> bool:
    try:
        found = root.get_submodule(name)
    except AttributeError:
        return False
    weight = getattr(found, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2


def _weight(linear: nn.Module) -> Tensor:
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight


def _unknown(model: nn.Module, layer: nn.Module, prefix: str) -> UnknownFamily:
    names = [f"{prefix}.{n}" for n, _ in layer.named_modules() if n and _has(layer, n)]
    return UnknownFamily(
        f"{type(model).__name__} has no value matrix of a known name; its linear maps are: "
        + ", ".join(names),
        hint="name the MLP's last linear map in [model] module",
    )
