"""What is not routed stays bit for bit what the bare model says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routed import FIRST, PROMPTS, WAYS, Bench, Layout, begun, fixed, generated, layouts, never, run
from torch.utils._python_dispatch import TorchDispatchMode

from wise.shard import Shard

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_bit_identical_when_nothing_fires(last: Bench, way: str) -> None:
    task, how = WAYS[way]
    bare_tokens, bare = generated(last.twin, PROMPTS, **task, **how)
    with never(last).attached():
        tokens, scores = generated(last.model, PROMPTS, **task, **how)
    assert torch.equal(tokens, bare_tokens)
    assert torch.equal(scores, bare)


@settings(max_examples=40, deadline=None)
@given(layout=layouts(), selects=st.booleans())
def test_logits_are_bit_identical_when_nothing_fires(layout: Layout, selects: bool) -> None:
    bench = replace(never(fixed()), selects=selects)
    bare = run(bench.twin, layout)
    with bench.attached():
        assert torch.equal(run(bench.model, layout), bare)


@pytest.mark.parametrize("width", [1, 4])
def test_a_change_that_overflows_harms_no_other_position(last: Bench, width: int) -> None:
    shards = tuple(Shard(s.columns, s.delta * 1e38) for s in last.memory.shards)
    memory = replace(never(last).memory, shards=shards)
    main = last.twin.get_submodule(last.site.module)
    inputs = torch.randn(3, width, last.site.d_in) * 1e3
    with replace(last, memory=memory).attached() as attached:
        assert torch.equal(attached.module(inputs), main(inputs))


class Products(TorchDispatchMode):
    """Notes the rows of every matrix product with a weight of so many input columns."""

    def __init__(self, columns: set[int]) -> None:
        super().__init__()
        self.columns, self.rows = columns, list[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("mm", "addmm", "linear"):
            given = args[-2]
            if given.shape[-1] in self.columns:
                self.rows.append(given.numel() // given.shape[-1])
        return func(*args, **(kwargs or {}))


def test_on_the_cpu_only_what_is_in_charge_is_computed() -> None:
    bench = fixed()
    with Products({len(s.columns) for s in bench.memory.shards}) as products:
        with bench.attached() as attached, attached.watched() as seen:
            bench.model(FIRST)
        active = int(seen[0].active.sum())
        assert 0 < active < FIRST.numel() and sum(products.rows) == active
        products.rows.clear()
        with never(bench).attached():
            bench.model(FIRST)
    assert products.rows == []


def test_what_is_not_routed_is_bit_identical_beside_what_is(last: Bench) -> None:
    bare = last.twin(FIRST).logits
    with last.attached() as attached, attached.watched() as seen:
        logits = last.model(FIRST).logits
    active = seen[0].active
    assert active.any() and not active.all()
    assert torch.equal(logits[~active], bare[~active])
    assert (logits[active] != bare[active]).any(-1).all()


def test_the_model_keeps_no_trace_of_the_memory(last: Bench) -> None:
    keys, modules = list(last.model.state_dict()), dict(last.model.named_modules())
    with last.attached():
        inside = list(last.model.state_dict())
        begun(last)
    after = dict(last.model.named_modules())
    assert inside == [
        k.replace("down_proj", "down_proj.main", k.startswith("model.layers.2")) for k in keys
    ]
    assert list(last.model.state_dict()) == keys
    assert list(after) == list(modules) and all(after[n] is m for n, m in modules.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in after.values())
    for name, value in last.twin.state_dict().items():
        assert torch.equal(last.model.state_dict()[name].view(torch.int32), value.view(torch.int32))
