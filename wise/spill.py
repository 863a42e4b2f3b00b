"""Keep captured activations within a byte budget: past it they live in mapped files.

The operating system writes mapped pages out and reads them back as memory allows, so that the
activations of many facts need no more memory than the budget. Contains no mathematics.
"""

from __future__ import annotations

import os
import sys
import tempfile

import torch
from torch import Tensor


class Spill:
    """Takes tensors; the first ``budget_mb`` MiB stay where they are, the rest go to disk."""

    def __init__(self, budget_mb: int) -> None:
        self._left = budget_mb * 2**20
        self.spilled = 0  #: bytes in mapped files

    def keep(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``, or a copy on the CPU in a mapped file when the budget is used up."""
        size = tensor.numel() * tensor.element_size()
        if size <= self._left:
            self._left -= size
            return tensor
        self.spilled += size
        # The file has no name once it is mapped, so that nothing is left behind, however we end.
        with tempfile.NamedTemporaryFile(prefix="wised-activations-") as file:
            if sys.platform != "darwin":
                # Its room is taken at once: on a full disk that is an error, and writing to a
                # page that the disk has no room for ends the process (SIGBUS).
                os.posix_fallocate(file.fileno(), 0, size)
            mapped = torch.from_file(
                file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype
            )
        return mapped.view(tensor.shape).copy_(tensor)
