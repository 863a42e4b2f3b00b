"""The paper, by its names: WISE as published (arXiv 2405.14768), complete.

    how = paper.Paper(mode=paper.Mode.RETRIEVE)
    shards = paper.edit(model, tokenizer, site, facts, irrelevant, how, seed=0)
    attached = paper.attach(model, site, paper.assemble([shards], site, how))

The named alternative to this repository's own way of editing, and the baseline of its bench.
Where the reference code differs from the paper, the paper is followed, and the place says so.
Names are imported on first use, so that ``import wise.paper`` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wise.paper.editing import edit
    from wise.paper.hyperparameters import Mode, Paper
    from wise.paper.losses import (
        activation_indicator,
        margin_loss,
        masked_step,
        replay_loss,
        shift,
        target_loss,
        top_one,
    )
    from wise.paper.masks import random_mask, union_mask
    from wise.paper.memory import ActivationRouted, PaperMemory, assemble, attach, check
    from wise.paper.objective import edit_loss
    from wise.paper.shard import PaperShard, merge, pack
    from wise.paper.storage import Settings, from_tensors, settings, to_tensors

_HOMES = {
    "editing": ("edit",),
    "hyperparameters": ("Mode", "Paper"),
    "losses": (
        "activation_indicator",
        "margin_loss",
        "masked_step",
        "replay_loss",
        "shift",
        "target_loss",
        "top_one",
    ),
    "masks": ("random_mask", "union_mask"),
    "memory": ("ActivationRouted", "PaperMemory", "assemble", "attach", "check"),
    "objective": ("edit_loss",),
    "shard": ("PaperShard", "merge", "pack"),
    "storage": ("Settings", "from_tensors", "settings", "to_tensors"),
}
__all__ = [
    "ActivationRouted",
    "Mode",
    "Paper",
    "PaperMemory",
    "PaperShard",
    "Settings",
    "activation_indicator",
    "assemble",
    "attach",
    "check",
    "edit",
    "edit_loss",
    "from_tensors",
    "margin_loss",
    "masked_step",
    "merge",
    "pack",
    "random_mask",
    "replay_loss",
    "settings",
    "shift",
    "target_loss",
    "to_tensors",
    "top_one",
    "union_mask",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` when it is first asked for."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"wise.paper.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'wise.paper' has no attribute {name!r}")
