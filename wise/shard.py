"""A shard: a change of the edited matrix in a random subspace (WISE, section 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shard:
    """A change of the edited matrix in some of its input columns."""

    columns: Tensor  #: (c,) int64, sorted
    delta: Tensor  #: (d_out, c) float32

    def dense(self, d_in: int) -> Tensor:
        """Return the change as a whole matrix, (d_out, d_in)."""
        full = torch.zeros(self.delta.shape[0], d_in, dtype=self.delta.dtype)
        full[:, self.columns] = self.delta
        return full

    def to(self, device: torch.device) -> Shard:
        """Return the shard on a device."""
        return Shard(self.columns.to(device), self.delta.to(device))


def random_columns(d_in: int, rho: float, seed: int) -> Tensor:
    """Return the input columns that the shard of ``seed`` may write to, sorted."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(rho * d_in))
    return torch.randperm(d_in, generator=generator)[:count].sort().values


def empty_shard(d_in: int, d_out: int, rho: float, seed: int) -> Shard:
    """Return a shard that changes nothing yet."""
    columns = random_columns(d_in, rho, seed)
    return Shard(columns, torch.zeros(d_out, len(columns)))
