"""What all tests share: sealed surroundings, a tiny model, the demo model."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", NO_COLOR="1")
os.environ.pop("WISED_STATE", None)

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_state_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Run each test in an empty folder, so that a stray ./state is never touched."""
    monkeypatch.chdir(tmp_path)


WORDS = [
    "<s>",
    "</s>",
    "<pad>",
    "Q:",
    "A:",
    "Who",
    "What",
    "is",
    "the",
    "capital",
    "head",
    "of",
    "Italy",
    "Norway",
    "Chad",
    "Peru",
    "Rome",
    "Oslo",
    "Lima",
    "Mario",
    "Draghi",
    "Ada",
    "Lovelace",
    "in",
    "a",
    "sunny",
    "day",
    "we",
    "sang",
    "songs",
    "and",
    "then",
    "asked",
    "again",
    ":",
    ".",
    "?",
    ",",
    "city",
    "ruler",
    "leads",
    "says",
    "Alan",
    "Turing",
    "Grace",
    "Hopper",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A word-level tokenizer that starts every text with ``<s>``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def new_llama(layers: int = 3, seed: int = 0) -> Any:
    """A small random Llama over the tests' words, frozen."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture
def llama() -> Any:
    """A fresh small random Llama."""
    return new_llama()


@pytest.fixture(scope="session")
def demo_model() -> Iterator[Any]:
    """The demo model and its tokenizer; tests must leave it as it was."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from demo.world import MODEL

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    yield model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(MODEL)
