"""What is known of a forward pass before it runs: its shape, its padding, where its rows stand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wise.history import FREE, SINK

HIDDEN = -1e3  #: additive attention masks hide with less: the dtype's minimum, or -1e4 by custom


@dataclass(slots=True)
class Pass:
    """A forward pass: what is known of it before it runs, and what came of it."""

    batch: int
    width: int
    before: Tensor  #: (batch, 1) int64: the state each row is in when the pass begins
    real: Tensor | None  #: (batch, width) bool: not padding; None where nothing is
    states: Tensor | None = None  #: (batch, width) int64; None unless the memory was at work


def real_tokens(mask: object, past: int | Tensor, batch: int, width: int) -> Tensor | None:
    """Return which of ``width`` positions after ``past`` aren't padding, (batch, width) bool.

    mask: what the body was given: nothing, one column a position, or by layer type or for all of
    them one row of keys a query; a query sees itself unless it is padding. None: all are real.
    """
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        return None
    keys = mask.shape[-1]
    if mask.dim() == 2 and isinstance(past, int):
        return mask[:, past : past + width].bool() if keys >= past + width else None
    # NOTE: a window of keys ends with the pass's own, so there are fewer of them than positions
    first = past.clamp(max=keys - width) if isinstance(past, Tensor) else min(past, keys - width)
    place = torch.arange(width, device=mask.device)
    if mask.dim() == 2:
        return mask[:, place + first].bool()
    seen = mask[:, 0, place, place + first]
    seen = seen if seen.dtype == torch.bool else seen > HIDDEN
    return seen.expand(batch, width)


def opening(batch: int, past: int | Tensor, mask: object, device: torch.device) -> Tensor:
    """Return the state of each row after ``past`` positions that no memory saw, (batch, 1)."""
    if isinstance(past, Tensor):
        return (past > 0).long().to(device).expand(batch, 1)
    if past and isinstance(mask, Tensor) and mask.dim() == 2:
        return mask[:, :past].bool().any(1, keepdim=True).long()
    return torch.full((batch, 1), FREE if past else SINK, device=device)


def unannounced(inputs: Tensor) -> Pass:
    """Take inputs that no forward pass was announced for as whole rows without padding."""
    batch, width = inputs.shape[:2] if inputs.dim() == 3 else (1, len(inputs))
    return Pass(batch, width, opening(batch, 0, None, inputs.device), None)
