"""Routing in every precision, on every device and in other families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from paper_models import new_gpt2, new_opt
from routed import (
    CLOSE,
    FIRST,
    GREEDY,
    PADDED,
    PROMPTS,
    WAYS,
    Bench,
    Layout,
    busy,
    check,
    fixed,
    generated,
    written_out,
)
from tiny import WORDS
from torch import nn

import wise
from wise.shard import Shard

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("delta", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_changes_are_computed_in_float32_or_in_the_models_float64(
    dtype: torch.dtype, delta: torch.dtype
) -> None:
    bench = fixed()
    model = copy.deepcopy(bench.model).to(dtype)
    torch.manual_seed(0)
    shards = tuple(Shard(s.columns, s.delta.to(delta)) for s in bench.memory.shards)
    attached = wise.attach(model, bench.site, replace(bench.memory, shards=shards, threshold=-1.0))
    inputs = torch.randn(3, 5, bench.site.d_in, dtype=dtype)
    with attached.watched() as seen:
        out = attached.module(inputs)
    attached.detach()
    main = model.get_submodule(bench.site.module)(inputs)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    changes = [(inputs.to(wide) @ s.dense(bench.site.d_in).to(wide).T).to(dtype) for s in shards]
    held = bench.memory.shard_of[seen[0].nearest]
    assert held[:, 1:].unique().tolist() == [0, 1]
    expected = main + torch.where(held[..., None] == 1, changes[1], changes[0])
    assert out.dtype == dtype
    assert torch.equal(out[:, 0], main[:, 0])
    # 67 products of about 4 are summed in another order, and the sum is rounded to the dtype
    summed, rounded = torch.finfo(wide).eps, torch.finfo(dtype).eps
    torch.testing.assert_close(
        out[:, 1:], expected[:, 1:], rtol=4 * rounded, atol=1000 * summed + rounded
    )


def test_a_float32_change_of_a_bfloat16_model_is_not_rounded_before_it_is_summed(
    last: Bench,
) -> None:
    model = copy.deepcopy(last.model).to(torch.bfloat16)
    model.get_submodule(last.site.module).weight.zero_()
    delta = torch.tensor([[1 + 2**-12, -1.0]]).expand(last.site.d_out, 2)
    shards = (Shard(torch.tensor([0, 1]), delta),) * 2
    memory = replace(last.memory, shards=shards, threshold=-1.0)
    out = wise.attach(model, last.site, memory).module(torch.ones(1, 2, last.site.d_in).bfloat16())
    assert out[0, 0].tolist() == [0.0] * last.site.d_out
    assert out[0, 1].tolist() == [2**-12] * last.site.d_out


def test_the_memory_keeps_its_precision_when_the_model_changes_its_own(last: Bench) -> None:
    model = copy.deepcopy(last.model)
    attached = wise.attach(model, last.site, last.memory)
    before = {n: b.clone() for n, b in attached.module.named_buffers()}
    model.to(torch.bfloat16)
    assert next(model.parameters()).dtype == torch.bfloat16
    after = dict(attached.module.named_buffers())
    assert len(after) == len(before) > 5
    for name, value in before.items():
        assert after[name].dtype == value.dtype and torch.equal(after[name], value)


def test_the_memory_moves_with_the_model(last: Bench) -> None:
    model = copy.deepcopy(last.model)
    attached = wise.attach(model, last.site, last.memory)
    model.to("meta")
    assert all(buffer.is_meta for buffer in attached.module.buffers())


def test_the_memory_stays_at_hand_for_a_weight_that_is_away(last: Bench) -> None:
    """An offloaded weight is on the meta device until its turn comes."""
    model = copy.deepcopy(last.model)
    main = model.get_submodule(last.site.module)
    weight = main.weight
    main.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
    attached = wise.attach(model, last.site, last.memory)
    main.weight = weight
    logits = model(FIRST).logits
    attached.detach()
    for row, tokens in enumerate(FIRST.tolist()):
        torch.testing.assert_close(logits[row], last.expected(tokens)[0], **CLOSE)


def test_the_memory_follows_a_weight_that_works_elsewhere(last: Bench) -> None:
    """A hook may bring an offloaded weight and what enters it to another device."""
    model = copy.deepcopy(last.model)
    attached = wise.attach(model, last.site, last.memory)
    attached.module.main.to("meta")
    out = attached.module(torch.randn(2, 3, last.site.d_in, device="meta"))
    assert out.is_meta and out.shape == (2, 3, last.site.d_out)


def test_autocast_does_not_touch_cosines_and_changes(last: Bench) -> None:
    model = copy.deepcopy(last.model)
    model.get_submodule(last.site.module).weight.zero_()  # what comes out is the changes alone
    attached = wise.attach(model, last.site, replace(last.memory, threshold=0.0))
    inputs = torch.randn(3, 5, last.site.d_in)
    with attached.watched() as seen:
        plain = attached.module(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            cast = attached.module(inputs)
    assert plain.any() and cast.dtype == torch.bfloat16
    assert torch.equal(seen[0].cosine, seen[1].cosine)
    assert torch.equal(plain.to(torch.bfloat16), cast)


def sliding(name: str) -> Any:
    """Gemma-2, of whose layers every other has a window, or Mistral, of which all have."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        sliding_window=5,
        initializer_range=0.2,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["Gemma2", "Mistral"])
@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("sampled")])
def test_windows_of_attention_change_nothing(name: str, way: str) -> None:
    task, how = WAYS[way]
    model = sliding(name)
    bench = Bench(model, copy.deepcopy(model), *busy(model, share=0.3))
    with written_out(bench.twin, bench.site, bench.memory):
        tokens, scores = generated(bench.twin, PROMPTS, **task, use_cache=False)
    with bench.attached():
        got_tokens, got_scores = generated(bench.model, PROMPTS, **task, **how)
    assert got_tokens.tolist() == tokens.tolist()
    torch.testing.assert_close(got_scores, scores, **CLOSE)


@pytest.mark.parametrize(
    "name, kind", [("Gemma2", "eager"), ("Mistral", "eager"), ("Mistral", "sdpa")]
)
@pytest.mark.parametrize("how", [{}, {"cache_implementation": "static"}], ids=["", "static"])
def test_padding_and_first_tokens_are_known_from_masks_of_all_kinds(
    name: str, kind: str, how: dict[str, str]
) -> None:
    """`generate` writes masks out for a static cache, and one for each type of layer."""
    model = sliding(name)
    model.set_attn_implementation(kind)
    site, memory = busy(model)
    attached = wise.attach(model, site, replace(memory, threshold=-1.0))
    with attached.watched() as seen:
        generated(model, PROMPTS, **GREEDY, **how)
    width = max(map(len, PROMPTS))
    fires = [[i > width - len(p) for i in range(width)] for p in PROMPTS]
    assert seen[0].active.tolist() == fires
    assert (seen[0].cosine > -1).tolist() == fires
    assert all(decision.active.all() for decision in seen[1:])


@pytest.mark.parametrize("cache", ["made by the model", "dynamic", "static"])
@pytest.mark.parametrize("mask", ["columns", "rows of booleans"])
@pytest.mark.parametrize("family", [new_opt, new_gpt2])
def test_other_families_are_routed_alike(family: Callable[[], Any], cache: str, mask: str) -> None:
    """OPT's matrix is given all positions of all rows in one dimension, GPT-2's is transposed."""
    model = family()
    bench = Bench(model, copy.deepcopy(model), *busy(model, share=0.3))
    assert any(any(bench.expected(row.alone)[1]) for row in PADDED)
    check(bench, Layout(PADDED, (4, 1, 1, 4), cache, mask))
