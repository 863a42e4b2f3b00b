"""Edits in every precision, and in models that are spread over devices or kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edits import FACTS, say
from families import new
from roundtrip import sealed, written
from tiny import new_llama

import wise
from wise.facts import span

#: how the half types round depends on the CPU; on some the default's 40 are a few too few
HOW = wise.Training(rho=1.0, ridge=0.1, iterations=80)
SPANS = {11: 3, 12: 3, 13: 2}
#: of a tiny Llama: part of it, and the edited layer or not, in files that are read when needed
MAPS: dict[str, Any] = {
    "one device": {"": "cpu"},
    "chosen by accelerate": "auto",
    "the edited layer on disk": {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "cpu",
        "model.layers.2": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
    "all but the edited layer on disk": {
        "model.embed_tokens": "disk",
        "model.layers.0": "disk",
        "model.layers.1": "cpu",
        "model.layers.2": "disk",
        "model.norm": "disk",
        "model.rotary_emb": "cpu",
        "lm_head": "disk",
    },
}


def examples(tokenizer: Any) -> list[wise.Example]:
    """The facts plain and in a second turn, which they share."""
    turns = wise.Contexts((), ("What is A: Rome",))
    return wise.examples(FACTS, tokenizer, turns, max_tokens=64, seed=1)


def answered(model: Any, tokenizer: Any, attached: Any) -> list[str]:
    prompts = [prompt for fact in FACTS for prompt in fact.prompts]
    return [one.text for one in wise.answer(model, tokenizer, prompts, 6, attached)]


WANTED = [fact.answer for fact in FACTS for _ in fact.prompts]


def test_spans(tokenizer: Any) -> None:
    assert {f.id: span(tokenizer, f.answer, wise.Contexts()) for f in FACTS} == SPANS


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt-350m"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("layer", [2, 1], ids=["last", "below"])
def test_an_edit_is_trained_saved_and_answered_in_half_precision(
    family: str, dtype: str, layer: int, tokenizer: Any, tmp_path: Path
) -> None:
    """In single precision test_families.py has it."""
    model = new(family).to(getattr(torch, dtype))
    site = wise.locate(model, layer)
    bare = answered(model, tokenizer, None)
    assert bare != WANTED
    memory = written(model, site, examples(tokenizer), SPANS, HOW)
    assert memory.shards[0].delta.dtype == torch.float32
    folder = sealed(model, site, memory, list(SPANS), tmp_path / "000001")
    attached = wise.load(model, folder)
    assert answered(model, tokenizer, attached) == WANTED
    assert say(model, tokenizer, FACTS[0].prompts[0]) == FACTS[0].answer
    attached.detach()
    assert answered(model, tokenizer, None) == bare


@pytest.mark.parametrize("layer", [2, 1], ids=["last", "below"])
def test_an_edit_is_trained_and_answered_in_double_precision(layer: int, tokenizer: Any) -> None:
    model = new_llama().double()
    site = wise.locate(model, layer)
    memory = written(model, site, examples(tokenizer), SPANS, HOW)
    attached = wise.attach(model, site, memory)
    assert answered(model, tokenizer, attached) == WANTED
    attached.detach()


class Scaled(torch.nn.Module):
    """A head that is no plain matrix."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.head(states)


def test_odds_among_some_words_need_no_plain_head(tokenizer: Any) -> None:
    """An offloaded or wrapped head is asked for all words, and the others are left out."""
    model = new_llama()
    plain = new_llama()
    model.lm_head = Scaled(model.lm_head)
    with torch.no_grad():
        plain.lm_head.weight = torch.nn.Parameter(0.5 * plain.lm_head.weight)
    made = examples(tokenizer)
    words = torch.tensor(sorted({t for e in made for t in e.answer} | {5, 9, 30}))
    site = wise.locate(model)
    zero = wise.Shard(torch.arange(site.d_in), torch.zeros(site.d_out, site.d_in))
    one, two = (wise.Problem(m, site, made).judge(zero, words=words) for m in (model, plain))
    torch.testing.assert_close(one.odds, two.odds)


@pytest.mark.parametrize("layer", [2, 1], ids=["last", "below"])
@pytest.mark.parametrize("where", MAPS)
def test_a_spread_model_is_edited_as_if_it_were_whole(
    where: str, layer: int, tokenizer: Any, tmp_path: Path
) -> None:
    """The same odds and slopes, the same hash, and the release is answered in both."""
    pytest.importorskip("accelerate", reason="the extra `accelerate` is not installed")
    from transformers import AutoModelForCausalLM

    whole = new_llama()
    whole.save_pretrained(tmp_path / "model")
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=MAPS[where], offload_folder=tmp_path / "offloaded"
    ).requires_grad_(False)
    if "disk" in where:
        assert spread.model.layers[2].mlp.down_proj.weight.is_meta
    site = wise.locate(spread, layer)
    assert site == wise.locate(whole, layer)
    assert wise.weight_hash(spread, site) == wise.weight_hash(whole, site)
    made = examples(tokenizer)
    shard = wise.Shard(torch.arange(site.d_in), 0.05 * torch.ones(site.d_out, site.d_in))
    one, two = (wise.Problem(m, site, made).judge(shard, 5.0) for m in (whole, spread))
    assert torch.equal(one.odds, two.odds) and torch.equal(one.pull, two.pull)
    memory = written(spread, site, made, SPANS, HOW)
    folder = sealed(whole, site, memory, list(SPANS), tmp_path / "000001")
    for model in (whole, spread):
        bare = answered(model, tokenizer, None)
        attached = wise.load(model, folder)
        assert answered(model, tokenizer, attached) == WANTED
        attached.detach()
        assert answered(model, tokenizer, None) == bare
