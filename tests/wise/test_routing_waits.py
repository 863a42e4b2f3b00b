"""Nothing in a forward pass waits for the device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from routed import PADDED, Bench, Layout, begun, run
from tiny import WORDS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import wise

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def selects() -> bool:
    """As on a GPU: on the CPU, a look at a decision waits for nothing."""
    return False


class Reads(TorchDispatchMode):
    """Counts the operations whose result, or whose result's shape, the host has to wait for."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += by_mask or name in self.NAMES or str(func) == "aten.repeat_interleave.Tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: int(x[0]),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: torch.equal(x, x + 1),
        lambda x: x.repeat_interleave(x),
        lambda x: torch.arange(x[0]),
    ],
)
def test_reads_are_seen(read: Callable[[Tensor], Any]) -> None:
    with Reads() as reads:
        read(torch.tensor([3, 0, 1]))
    assert reads.count


@pytest.mark.parametrize("cache", ["made by the model", "dynamic", "static", "none"])
@pytest.mark.parametrize("mask", ["none", "columns", "rows of booleans", "rows of numbers"])
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
def test_the_memory_reads_nothing_back(last: Bench, cache: str, mask: str, watched: bool) -> None:
    """As many reads as the bare model makes: transformers itself looks at a mask of columns."""
    layout = Layout(PADDED, (10,) if cache == "none" else (4, 1, 1, 4), cache, mask)
    with Reads() as bare:
        run(last.twin, layout)
    with last.attached() as attached, ExitStack() as around:
        if watched:
            around.enter_context(attached.watched())
        reads = around.enter_context(Reads())
        run(last.model, layout)
    assert reads.count == bare.count


def test_following_a_cache_reads_nothing_back(last: Bench) -> None:
    with last.attached():
        cache = begun(last)
        with Reads() as reads:
            cache.reorder_cache(torch.tensor([2, 0, 0]))
            cache.batch_repeat_interleave(2)
            cache.batch_select_indices(torch.tensor([0, 3]))
            cache.crop(-2)
    assert reads.count == 0


@pytest.mark.parametrize(
    "cache, mask",
    [
        (cache, mask)
        for cache in ("made by the model", "static", "none")
        for mask in ("none", "columns", "rows of booleans", "rows of numbers")
        if (cache, mask) != ("none", "none")  # there transformers looks for packed sequences
    ],
)
def test_the_memory_runs_where_there_is_nothing_to_read(last: Bench, cache: str, mask: str) -> None:
    """On the meta device tensors have no values: any read raises, `tolist()` too."""
    model = copy.deepcopy(last.model)
    model.set_attn_implementation("eager")  # the default looks for padding in a mask of columns
    layout = Layout(PADDED, (10,) if cache == "none" else (4, 1, 1, 4), cache, mask)
    attached = wise.attach(model, last.site, last.memory)
    model.to("meta")
    with torch.device("meta"), attached.watched() as seen:
        logits = run(model, layout)
    assert logits.is_meta and logits.shape == (2, 10, len(WORDS))
    assert sum(decision.active.shape[1] for decision in seen) == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cache", ["made by the model", "static"])
def test_a_gpu_is_never_waited_for(last: Bench, cache: str) -> None:
    model = copy.deepcopy(last.model).cuda()
    layout = Layout(PADDED, (4, 1, 1, 4), cache, "rows of booleans")
    attached = wise.attach(model, last.site, last.memory)
    with torch.device("cuda"):
        run(model, layout)
        torch.cuda.set_sync_debug_mode("error")
        try:
            attached.module(torch.randn(2, 4, last.site.d_in))
            run(model, layout)
        finally:
            torch.cuda.set_sync_debug_mode("default")
