"""The editing core of wised: write facts beside one MLP matrix of a frozen causal LM.

    model = AutoModelForCausalLM.from_pretrained(...)
    memory = wise.load(model, "state/current")
    model.generate(...)
    memory.detach()

WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of LLMs (arXiv 2405.14768).
Names are imported on first use, so that ``import wise`` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wise.activations import capture, last_inputs
    from wise.errors import BadArtifact, BadFact, UnknownFamily, UnsupportedModel, WiseError
    from wise.facts import Contexts, Example, Fact, answer_tokens, examples, piece
    from wise.generate import Answer, answer
    from wise.memory import Attached, SideMemory, attach
    from wise.merging import heal, merge, ties
    from wise.problem import Problem
    from wise.release import Release, load
    from wise.router import Calibration, Keys, Space, calibrate, fit_space, prototypes
    from wise.shard import Shard, empty_shard
    from wise.site import Site, locate, weight_hash
    from wise.train import Fit, Training, solve, train_shard

_HOMES = {
    "activations": ("capture", "last_inputs"),
    "errors": ("BadArtifact", "BadFact", "UnknownFamily", "UnsupportedModel", "WiseError"),
    "facts": ("Contexts", "Example", "Fact", "answer_tokens", "examples", "piece"),
    "generate": ("Answer", "answer"),
    "site": ("Site", "locate", "weight_hash"),
    "memory": ("Attached", "SideMemory", "attach"),
    "merging": ("heal", "merge", "ties"),
    "release": ("Release", "load"),
    "router": ("Calibration", "Keys", "Space", "calibrate", "fit_space", "prototypes"),
    "problem": ("Problem",),
    "shard": ("Shard", "empty_shard"),
    "train": ("Fit", "Training", "solve", "train_shard"),
}
__all__ = [
    "Answer",
    "Attached",
    "BadArtifact",
    "BadFact",
    "Calibration",
    "Contexts",
    "Example",
    "Fact",
    "Fit",
    "Keys",
    "Problem",
    "Release",
    "Shard",
    "SideMemory",
    "Site",
    "Space",
    "Training",
    "UnknownFamily",
    "UnsupportedModel",
    "WiseError",
    "answer",
    "answer_tokens",
    "attach",
    "calibrate",
    "capture",
    "empty_shard",
    "examples",
    "fit_space",
    "heal",
    "last_inputs",
    "load",
    "locate",
    "merge",
    "piece",
    "prototypes",
    "solve",
    "ties",
    "train_shard",
    "weight_hash",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` when it is first asked for."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"wise.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'wise' has no attribute {name!r}")
