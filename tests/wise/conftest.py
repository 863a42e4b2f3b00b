"""Fixtures of the editing core: a tiny tokenizer and model."""

from __future__ import annotations

from typing import Any

import pytest
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
