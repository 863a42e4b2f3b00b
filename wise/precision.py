"""In which precision the frozen weights are multiplied while facts are trained.

The change itself, the Gram matrix, losses and norms stay in float32; torch's autocast rounds only
what enters the products of the frozen layers, and of the captured inputs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from wise.errors import UnsupportedModel


def mixed_pays(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether products in bfloat16 are faster here for a model of ``dtype``.

    2.5 times for the demo model's shapes on a CPU that has them in its instruction set; where it
    emulates them they are slower than float32.
    """
    if dtype != torch.float32:
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    has = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in has)


def products(mixed: bool, dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which frozen weights are multiplied.

    Raises UnsupportedModel where mixed precision is asked of a model that isn't in float32.
    """
    if not mixed:
        return nullcontext()
    if dtype != torch.float32:
        raise UnsupportedModel(f"mixed precision is for models in float32, not {dtype}")
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
    return context
