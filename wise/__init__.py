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
    from wise import paper
    from wise.activations import capture, last_inputs
    from wise.attached import Attached
    from wise.attaching import attach
    from wise.capacity import Overlap, fullness, overlap, packed
    from wise.editset import EditSet
    from wise.errors import (
        BadArtifact,
        BadFact,
        NotStorable,
        UnknownFamily,
        UnsupportedModel,
        WiseError,
    )
    from wise.facts import Contexts, Example, Fact, answer_tokens, examples, piece
    from wise.generate import Answer, answer
    from wise.memory import SideMemory
    from wise.merging import compact, heal, merge, ties
    from wise.problem import Problem
    from wise.release import Release, load
    from wise.router import Calibration, Keys, Space, calibrate, fit_space, prototypes
    from wise.scoring import Probe, Score, evaluate
    from wise.shard import Shard, empty_shard
    from wise.site import Site, locate, weight_hash
    from wise.train import Fit, Training, solve, train_shard

_HOMES = {
    "activations": ("capture", "last_inputs"),
    "attaching": ("attach",),
    "capacity": ("Overlap", "fullness", "overlap", "packed"),
    "editset": ("EditSet",),
    "errors": (
        "BadArtifact",
        "BadFact",
        "NotStorable",
        "UnknownFamily",
        "UnsupportedModel",
        "WiseError",
    ),
    "facts": ("Contexts", "Example", "Fact", "answer_tokens", "examples", "piece"),
    "generate": ("Answer", "answer"),
    "site": ("Site", "locate", "weight_hash"),
    "attached": ("Attached",),
    "memory": ("SideMemory",),
    "merging": ("compact", "heal", "merge", "ties"),
    "release": ("Release", "load"),
    "router": ("Calibration", "Keys", "Space", "calibrate", "fit_space", "prototypes"),
    "problem": ("Problem",),
    "scoring": ("Probe", "Score", "evaluate"),
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
    "EditSet",
    "Example",
    "Fact",
    "Fit",
    "Keys",
    "NotStorable",
    "Overlap",
    "Probe",
    "Problem",
    "Release",
    "Score",
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
    "compact",
    "empty_shard",
    "evaluate",
    "examples",
    "fit_space",
    "fullness",
    "heal",
    "last_inputs",
    "load",
    "locate",
    "merge",
    "overlap",
    "packed",
    "paper",
    "piece",
    "prototypes",
    "solve",
    "ties",
    "train_shard",
    "weight_hash",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines ``name`` when it is first asked for."""
    if name == "paper":
        return importlib.import_module("wise.paper")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"wise.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'wise' has no attribute {name!r}")
