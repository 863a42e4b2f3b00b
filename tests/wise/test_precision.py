"""Training with the frozen weights' products in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edits import FACTS, HOW, examples

import wise
from wise.precision import mixed_pays
from wise.problem import Problem

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads Linux's /proc")
def test_it_pays_where_the_cpu_has_such_products() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert mixed_pays(torch.float32, CPU) == ("avx512_bf16" in flags or "amx_tile" in flags)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_it_never_pays_for_other_models(dtype: torch.dtype) -> None:
    assert not mixed_pays(dtype, CPU)
    assert not mixed_pays(torch.float32, torch.device("meta"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_is_refused_for_other_models(llama: Any, tokenizer: Any, dtype: torch.dtype) -> None:
    model = llama.to(dtype)
    with pytest.raises(wise.UnsupportedModel, match=f"in float32, not {dtype}"):
        Problem(model, wise.locate(model), examples(tokenizer), mixed=True)


@pytest.mark.parametrize("layer", [1, 2])
def test_what_is_trained_so_is_right_in_full_precision(
    llama: Any, tokenizer: Any, layer: int
) -> None:
    site, made = wise.locate(llama, layer), examples(tokenizer)
    rough, exact = Problem(llama, site, made, mixed=True), Problem(llama, site, made)
    fit = wise.train_shard(rough, HOW, seed=3)
    assert not fit.unfit
    said, found = rough.judge(fit.shard, pull=False), exact.judge(fit.shard, pull=False)
    assert not torch.equal(said.odds, found.odds)
    assert float((said.odds - found.odds).abs().max()) < HOW.margin / 2
    assert float(found.odds.min()) > 0


def test_the_same_bytes_come_of_it_twice(llama: Any, tokenizer: Any) -> None:
    site, made = wise.locate(llama), examples(tokenizer)
    one, two = (
        wise.train_shard(Problem(llama, site, made, mixed=True), HOW, seed=3).shard.delta
        for _ in range(2)
    )
    assert one.dtype == torch.float32 and torch.equal(one, two)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_edit_set_is_captured_as_asked(llama: Any, tokenizer: Any, mixed: bool) -> None:
    problem = wise.EditSet(FACTS).problem(llama, tokenizer, mixed=mixed)
    kind = torch.bfloat16 if mixed else torch.float32
    assert all(at.inputs.dtype == kind for at in problem._batches)
