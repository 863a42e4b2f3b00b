"""The same stream written the paper's way: shards of 50 edits, each 2 merged, retrieved by norm."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import wise
from bench.lifelong_world import Asked, of_facts, of_others
from demo import world
from demo.world import Update
from wise import paper

SHARDS, SHARD = 2, 50  #: shards that are merged into one side memory, updates of each
MAX_TOKENS = 48
IRRELEVANT = 500  #: prompts that must not activate a side memory


@dataclass(frozen=True, slots=True)
class PaperRow:
    """What the paper's memory answers after so many updates."""

    updates: int
    live: int
    shares: dict[str, float]  #: reliability, generalisation, locality_near, locality_far, stale
    seconds: float  #: of 50 updates, the mean since the row before


class PaperStream:
    """The demo model with the paper's memories, one for each `SHARDS` times `SHARD` updates."""

    def __init__(self) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(world.MODEL, dtype=torch.float32)
        self.model.eval().requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(world.MODEL)
        self.site = wise.locate(self.model)
        self.how = paper.Paper(k=SHARDS, mode=paper.Mode.RETRIEVE)
        self.batches: list[tuple[paper.PaperShard, ...]] = []
        self.past: list[list[str]] = []
        touched = {(u.subject, u.relation) for u in world.updates()}
        asked = world.phrasings()
        self.irrelevant = [
            asked[f.relation].prompts[0].format(subject=f.subject)
            for f in world.base_facts()
            if (f.subject, f.relation) not in touched
        ][:IRRELEVANT]

    def rows(self, updates: Sequence[Update], near: int, far: int) -> Iterator[PaperRow]:
        """Write updates in order; yield a row after each merged memory."""
        step = SHARDS * SHARD
        for start in range(0, len(updates), step):
            part, begun = updates[start : start + step], time.monotonic()
            self._write(part, start)
            seconds = (time.monotonic() - begun) * SHARD / len(part)
            told = updates[: start + len(part)]
            asked = of_facts(told) | of_others(told, near, far)
            live = len({(u.subject, u.relation) for u in told})
            yield PaperRow(len(told), live, self._shares(asked), seconds)

    def _write(self, part: Sequence[Update], start: int) -> None:
        asked = world.phrasings()
        prompts = [
            tuple(p.format(subject=u.subject) for p in asked[u.relation].prompts) for u in part
        ]
        made = [wise.Fact(start + i, prompts[i], update.new) for i, update in enumerate(part)]
        shards = paper.edit(
            self.model,
            self.tokenizer,
            self.site,
            made,
            self.irrelevant,
            self.how,
            seed=start,
            past=self.past,
        )
        self.batches.append(tuple(shards))
        self.past.append([own[0] for own in prompts])

    def _shares(self, asked: dict[str, list[Asked]]) -> dict[str, float]:
        memory = paper.assemble(self.batches, self.site, self.how)
        bare = {
            kind: self._said([one.prompt for one in some], None)
            for kind, some in asked.items()
            if kind.startswith("locality")
        }
        attached = wise.attach(self.model, self.site, memory)
        shares = {}
        for kind, some in asked.items():
            said = self._said([one.prompt for one in some], attached)
            wanted: Sequence[str | None] = bare.get(kind) or [one.expected for one in some]
            shares[kind] = sum(a == b for a, b in zip(said, wanted, strict=True)) / len(said)
            if kind == "reliability":
                stale = [a in one.older for a, one in zip(said, some, strict=True)]
                shares["stale"] = sum(stale) / len(said)
        attached.detach()
        return shares

    def _said(self, prompts: list[str], memory: wise.Attached | None) -> list[str]:
        said = wise.answer(self.model, self.tokenizer, prompts, MAX_TOKENS, memory)
        return [answer.text for answer in said]
