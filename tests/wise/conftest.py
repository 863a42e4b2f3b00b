"""Fixtures of the editing core: a tiny tokenizer and model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from routed import Bench, busy, fixed
from tiny import WORDS, new_llama


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


@pytest.fixture
def llama() -> Any:
    """A fresh small random Llama."""
    return new_llama()


@pytest.fixture(scope="module", params=[True, False], ids=["selecting", "everywhere"])
def selects(request: Any) -> bool:
    """Whether the memory works on the rows in charge alone, as on the CPU, or as on a GPU."""
    return bool(request.param)


@pytest.fixture(scope="module", params=[0, 2], ids=["first layer", "last layer"])
def bench(request: Any, selects: bool) -> Bench:
    """A model with a memory that fires often, at the first and at the last layer."""
    model = new_llama()
    return Bench(model, copy.deepcopy(model), *busy(model, request.param), selects=selects)


@pytest.fixture(scope="module")
def last(selects: bool) -> Bench:
    """The same at the last layer."""
    return replace(fixed(), selects=selects)


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """Run a test as serving does."""
    with torch.no_grad():
        yield
