"""What all tests share: sealed surroundings and the demo model."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", NO_COLOR="1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the daemon's workers have it
os.environ.pop("WISED_STATE", None)

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_state_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Run each test in an empty folder, so that a stray ./state is never touched."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def demo_model() -> Iterator[Any]:
    """The demo model and its tokenizer; tests must leave it as it was."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from demo.world import MODEL

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    yield model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(MODEL)
