"""A memory that fires often, what it must do, and ways of running a model with it.

Expected values come from `WrittenOut`, which walks over whole sequences one position at a time and
knows no cache, or from the bare model. Holds no tests.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from tiny import WORDS, new_llama
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

import wise
from wise.memory import RoutedMemory
from wise.router import Keys, Space
from wise.shard import Shard, random_columns

CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums in another order; a missed change is > .1


def busy(model: Any, layer: int = -1, share: float = 0.15) -> tuple[wise.Site, wise.SideMemory]:
    """Four facts of different spans in two shards; about this share of all positions fires."""
    torch.manual_seed(0)
    site = wise.locate(model, layer)
    rows = torch.randint(3, len(WORDS), (24, 8)).tolist()
    inputs = torch.stack([entering(model, site, r[: 2 + i % 6]) for i, r in enumerate(rows)])
    space = Space(inputs.mean(0), torch.rand(site.d_in) + 0.5)
    keys = Keys(space(inputs[:8]), torch.arange(8) % 4)
    others = (space(inputs[8:]) @ keys.vectors.T).amax(1)
    shards = []
    for index, scale in enumerate((2.0, 4.0)):
        columns = random_columns(site.d_in, 0.7, index)
        shards.append(Shard(columns, torch.randn(site.d_out, len(columns)) * scale))
    spans, shard_of = torch.tensor([1, 2, 3, 5]), torch.tensor([0, 1, 0, 1])
    threshold = float(others.quantile(1 - share))
    return site, wise.SideMemory(tuple(shards), space, keys, spans, shard_of, threshold)


def entering(model: Any, site: wise.Site, tokens: list[int]) -> Tensor:
    """What enters the edited matrix at the last of ``tokens``, (d_in,)."""
    seen: list[Tensor] = []
    module = model.get_submodule(site.module)
    hook = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(torch.tensor([tokens]), use_cache=False)
    hook.remove()
    return seen[0].reshape(-1, site.d_in)[-1]


class WrittenOut(nn.Module):
    """The routed memory as it is described: one row, one position, one comparison at a time."""

    def __init__(self, main: nn.Module, memory: wise.SideMemory) -> None:
        super().__init__()
        self.main, self.memory = main, memory
        self.mask: Tensor | None = None
        self.active: list[list[bool]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dim() == 2:  # a family that flattens; all rows here are alone
            return self(inputs[None])[0]
        out: Tensor = self.main(inputs).clone()
        self.active = [[False] * inputs.shape[1] for _ in inputs]
        for row, one in enumerate(inputs):
            mask = [1] * len(one) if self.mask is None else self.mask[row].tolist()
            self._walk(one, [i for i, real in enumerate(mask) if real], out[row], self.active[row])
        return out

    def _walk(self, inputs: Tensor, real: list[int], out: Tensor, active: list[bool]) -> None:
        memory, fact, left = self.memory, -1, 0
        for place in real[1:]:
            cosines = memory.keys.vectors @ memory.space(inputs[place])
            best = int(cosines.argmax())
            left -= 1
            if float(cosines[best]) >= memory.threshold:
                fact = int(memory.keys.fact[best])
                left = int(memory.span[fact])
            if left > 0:
                shard = memory.shards[int(memory.shard_of[fact])]
                out[place] += shard.delta @ inputs[place, shard.columns]
                active[place] = True


@contextmanager
def written_out(model: Any, site: wise.Site, memory: wise.SideMemory) -> Iterator[WrittenOut]:
    parent, name = model.get_submodule(site.module.rpartition(".")[0]), site.module.split(".")[-1]
    main = getattr(parent, name)
    plain = WrittenOut(main, memory)

    def note(body: nn.Module, args: Any, kwargs: Any) -> None:
        plain.mask = kwargs.get("attention_mask")

    body = model.get_submodule(site.layers.rpartition(".")[0])
    hook = body.register_forward_pre_hook(note, with_kwargs=True)
    setattr(parent, name, plain)
    try:
        yield plain
    finally:
        setattr(parent, name, main)
        hook.remove()


@dataclass(frozen=True)
class Bench:
    """A model, a memory, and the right answers."""

    model: Any
    twin: Any  #: the same model, which nothing is attached to
    site: wise.Site
    memory: wise.SideMemory
    selects: bool = True  #: work on the rows in charge alone, as on the CPU, or as on a GPU

    def expected(self, tokens: list[int]) -> tuple[Tensor, list[bool]]:
        """The logits of one row alone, (width, vocabulary), and where the memory answers."""
        with written_out(self.twin, self.site, self.memory) as plain:
            logits = self.twin(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits, plain.active[0]

    @contextmanager
    def attached(self) -> Iterator[wise.Attached]:
        attached = wise.attach(self.model, self.site, self.memory)
        assert isinstance(attached.module, RoutedMemory) and attached.module.selects
        attached.module.selects = self.selects
        try:
            yield attached
        finally:
            attached.detach()


@functools.cache
def fixed() -> Bench:
    model = new_llama()
    return Bench(model, copy.deepcopy(model), *busy(model))


PROMPTS = ([0, 5, 17, 30, 9, 12], [0, 44, 8], [0, 21, 33, 40, 6, 10, 31, 19, 25], [0, 14, 29, 37])


GREEDY = {"do_sample": False}


SAMPLED = {"do_sample": True, "top_k": 0, "temperature": 0.7}


BEAMS = {"do_sample": False, "num_beams": 4}


WAYS = {
    "greedy": (GREEDY, {}),
    "without a cache": (GREEDY, {"use_cache": False}),
    "prefill by one": (GREEDY, {"prefill_chunk_size": 1}),
    "prefill by two": (GREEDY, {"prefill_chunk_size": 2}),
    "prefill by four": (GREEDY, {"prefill_chunk_size": 4}),
    "static cache": (GREEDY, {"cache_implementation": "static"}),
    "static cache, prefill by four": (
        GREEDY,
        {"cache_implementation": "static", "prefill_chunk_size": 4},
    ),
    "beams": (BEAMS, {}),
    "beams, chunks": (BEAMS, {"prefill_chunk_size": 3}),
    "beams, static cache": (BEAMS, {"cache_implementation": "static"}),
    "beams, all returned": (BEAMS | {"num_return_sequences": 4}, {}),
    "sampled": (SAMPLED, {}),
    "sampled, static cache": (SAMPLED, {"cache_implementation": "static"}),
    "sampled, three each": (SAMPLED | {"num_return_sequences": 3}, {}),
    "sampled beams": (SAMPLED | {"num_beams": 3}, {}),
}


def generated(model: Any, prompts: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """New tokens (rows, n) and their scores (n, rows, vocabulary); padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(p)) + list(p) for p in prompts])
    torch.manual_seed(3)
    out = model.generate(
        ids,
        attention_mask=(
            torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts])
        ).long(),
        max_new_tokens=9,
        eos_token_id=None,
        pad_token_id=2,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    return out.sequences[:, width:], torch.stack(out.scores)


@dataclass(frozen=True)
class Row:
    """One row of a batch: its real tokens with padding anywhere."""

    tokens: tuple[int, ...]
    real: tuple[bool, ...]

    @property
    def places(self) -> list[int]:
        return [i for i, real in enumerate(self.real) if real]

    @property
    def alone(self) -> list[int]:
        return [self.tokens[i] for i in self.places]


@dataclass(frozen=True)
class Layout:
    """How rows go into the model."""

    rows: tuple[Row, ...]
    cuts: tuple[int, ...]  #: widths of the successive forward passes; they add up to the rows'
    cache: str
    mask: str


def padded(tokens: list[int], left: int, right: int, extra: list[int]) -> Row:
    """Pad on both sides, and with a pad more after each of some places inside."""
    line = [(0, False)] * left
    for place, token in enumerate(tokens):
        line += [(token, True)] + [(0, False)] * (place in extra and place < len(tokens) - 1)
    line += [(0, False)] * right
    return Row(tuple(t for t, _ in line), tuple(r for _, r in line))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    token = st.integers(0, len(WORDS) - 1)
    drawn = draw(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=4))
    gaps = st.lists(st.integers(0, 8), max_size=2)
    pads = st.integers(0, 4)
    rows = [padded(t, draw(pads), 0, draw(gaps)) for t in drawn]
    width = max(len(row.real) for row in rows) + draw(pads)
    rows = [
        Row(r.tokens + (2,) * (width - len(r.real)), r.real + (False,) * (width - len(r.real)))
        for r in rows
    ]
    if draw(st.booleans()):  # the rest of the padding to the left
        rows = [moved(row) for row in rows]
    marks = draw(st.sets(st.integers(1, width - 1))) if width > 1 else set()
    ends = [0, *sorted(marks), width]
    cuts = tuple(b - a for a, b in pairwise(ends))
    caches = ["made by the model", "dynamic", "static"] + ["none"] * (len(cuts) == 1)
    masks = ["columns", "rows of booleans", "rows of numbers"]
    masks += ["none"] * all(all(row.real) for row in rows)
    return Layout(tuple(rows), cuts, draw(st.sampled_from(caches)), draw(st.sampled_from(masks)))


def moved(row: Row) -> Row:
    """Bring the padding at the end to the front."""
    end = len(row.real) - 1 - row.real[::-1].index(True)
    return Row(
        row.tokens[end + 1 :] + row.tokens[: end + 1], row.real[end + 1 :] + row.real[: end + 1]
    )


def run(model: Any, layout: Layout) -> Tensor:
    """The logits of all positions, (rows, width, vocabulary), by hand-written passes."""
    ids = torch.tensor([row.tokens for row in layout.rows])
    real = torch.tensor([row.real for row in layout.rows])
    places = (real.cumsum(1) - 1).clamp(min=0)
    makers: dict[str, Callable[[], Any]] = {
        "dynamic": lambda: DynamicCache(config=model.config),
        "static": lambda: StaticCache(config=model.config, max_cache_len=ids.shape[1] + 3),
    }
    cache = makers[layout.cache]() if layout.cache in makers else None
    logits, past = [], 0
    for width in layout.cuts:
        now = slice(past, past + width)
        out = model(
            ids[:, now],
            position_ids=None if layout.mask == "none" else places[:, now],
            attention_mask=mask_of(layout, real, past, width),
            past_key_values=cache,
            use_cache=layout.cache != "none",
        )
        cache = out.past_key_values
        logits.append(out.logits)
        past += width
    return torch.cat(logits, 1)


def mask_of(layout: Layout, real: Tensor, past: int, width: int) -> Tensor | None:
    """What the model is given as its mask; rows of keys are written out query by query."""
    if layout.mask == "none":
        return None
    if layout.mask == "columns":
        return real[:, : past + width].long()
    keys = real.shape[1] + 3 if layout.cache == "static" else past + width
    rows = torch.zeros(len(real), 1, width, keys, dtype=torch.bool)
    for query in range(width):
        rows[:, 0, query, : past + query + 1] = real[:, : past + query + 1]
    if layout.mask == "rows of booleans":
        return rows
    return torch.where(rows, 0.0, torch.finfo(torch.float32).min)


def check(bench: Bench, layout: Layout) -> None:
    """Every real position has the logits and the decision of its row alone; pads have neither."""
    with bench.attached() as attached, attached.watched() as seen:
        logits = run(bench.model, layout)
    active = torch.cat([decision.active for decision in seen], 1)
    for index, row in enumerate(layout.rows):
        expected, fired = bench.expected(row.alone)
        assert active[index, row.places].tolist() == fired
        assert int(active[index].sum()) == sum(fired)
        torch.testing.assert_close(logits[index, row.places], expected, **CLOSE)


#: two rows with padding in front, within and behind
PADDED = (
    Row((2, 2, 0, 35, 28, 13, 21, 4, 26, 8), (False, False) + (True,) * 8),
    Row((0, 35, 28, 13, 21, 4, 26, 2, 8, 2), (True,) * 7 + (False, True, False)),
)

#: of these, the first ends within a short span, the second in none, the last within a long one
FIRST = torch.tensor([[0, 35, 28, 13, 21, 4], [0, 32, 21, 44, 34, 9], [0, 14, 29, 22, 17, 16]])


NEXT = torch.tensor([[26, 8, 26, 45], [41, 12, 3, 40], [39, 6, 33, 24]])


def empty(bench: Bench, kind: str) -> Any:
    config = bench.model.config
    if kind == "dynamic":
        return DynamicCache(config=config)
    return StaticCache(config=config, max_cache_len=16)


def begun(bench: Bench, cache: Any = None) -> Any:
    """A cache that stands after FIRST."""
    cache = empty(bench, "dynamic") if cache is None else cache
    bench.model(FIRST, past_key_values=cache)
    return cache


def goes_on(bench: Bench, attached: wise.Attached, cache: Any, past: Tensor, then: Tensor) -> None:
    """Feed ``then`` token by token to a cache that stands after ``past``: as without a cache."""
    with attached.watched() as seen:
        logits = [bench.model(t[:, None], past_key_values=cache).logits for t in then.unbind(1)]
    active = torch.cat([decision.active for decision in seen], 1)
    for row, tokens in enumerate(torch.cat([past, then], 1).tolist()):
        expected, fired = bench.expected(tokens)
        assert active[row].tolist() == fired[past.shape[1] :]
        torch.testing.assert_close(torch.cat(logits, 1)[row], expected[past.shape[1] :], **CLOSE)


ROWS = {
    "reordered": (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
    "selected": (lambda cache: cache.batch_select_indices(torch.tensor([1, 2])), [1, 2]),
    "selected by a mask": (
        lambda cache: cache.batch_select_indices(torch.tensor([True, False, True])),
        [0, 2],
    ),
    "repeated": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
}


def never(bench: Bench) -> Bench:
    """The same with a threshold that no cosine reaches."""
    return replace(bench, memory=replace(bench.memory, threshold=1.5))
