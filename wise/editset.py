"""A set of edits as a researcher has it: facts, and what they must leave alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from wise.activations import capture, last_inputs
from wise.facts import Contexts, Fact, examples, prompt_tokens, span
from wise.memory import SideMemory
from wise.problem import BUDGET_MB, Problem
from wise.release import Release
from wise.router import (
    ALIKE,
    LOW_QUANTILE,
    Calibration,
    Keys,
    Space,
    best_match,
    calibrate,
    fit_space,
    own_matches,
    prototypes,
)
from wise.shard import Shard
from wise.site import Site, locate, values, weight_hash

TEXT_TOKENS = 64  #: of each negative text


@dataclass(frozen=True, slots=True)
class EditSet:
    """Facts to write into one side memory, and the prompts that its router learns from.

    Without ``questions`` keys are compared as they are, and without negatives the threshold is
    ``floor``: good enough to try, not to serve.
    """

    facts: tuple[Fact, ...]
    contexts: Contexts = field(default_factory=Contexts)
    questions: tuple[tuple[str, ...], ...] = ()  #: unrelated ones, each in several phrasings
    negatives: tuple[str, ...] = ()  #: prompts that must not be routed; none of ``questions``
    texts: tuple[str, ...] = ()  #: running text no position of which may be routed
    seed: int = 0
    false_fire: float = 0.001  #: share of the negatives that the threshold may lie below
    lean: float = 0.6  #: how far from the others up to the keys the threshold lies
    floor: float = 0.7  #: cosine below which nothing is ever routed

    def problem(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        site: Site | None = None,
        budget_mb: int = BUDGET_MB,
        *,
        mixed: bool | None = None,
    ) -> Problem:
        """Capture the facts in all phrasings and contexts; the model is left as it was.

        mixed: whether frozen weights are multiplied in bfloat16 (`precision`); None: where it pays.
        """
        limit = int(getattr(getattr(model, "config", None), "max_position_embeddings", 2**31))
        made = examples(self.facts, tokenizer, self.contexts, max_tokens=limit, seed=self.seed)
        return Problem(model, site or locate(model), made, budget_mb, mixed=mixed)

    def release(
        self,
        problem: Problem,
        tokenizer: PreTrainedTokenizerBase,
        shards: Sequence[Shard],
        shard_of: Sequence[int] | None = None,
    ) -> Release:
        """Put trained shards and a calibrated router together.

        shard_of: for each fact the index of the shard that holds it; None: all in the first.
        """
        model, site = problem.model, problem.site
        place = {fact.id: index for index, fact in enumerate(self.facts)}
        fact = torch.tensor([place[e.fact] for e in problem.examples], dtype=torch.long)
        phrasing = torch.tensor([e.phrasing for e in problem.examples], dtype=torch.long)
        space = self._space(model, tokenizer, site)
        vectors = space(problem.keys)
        keys = prototypes(vectors, fact, ALIKE)
        own = own_matches(vectors, fact, phrasing)
        calibration = self._calibrated(model, tokenizer, site, space, keys, own)
        spans = [span(tokenizer, f.answer, self.contexts) for f in self.facts]
        dtype = values(model, site).dtype
        holds = torch.tensor(shard_of or [0] * len(self.facts), dtype=torch.long)
        memory = SideMemory(
            tuple(shard.stored_as(dtype) for shard in shards),
            space,
            keys,
            torch.tensor(spans),
            holds,
            calibration.threshold,
        )
        name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "unnamed")
        ids = tuple(f.id for f in self.facts)
        written = tuple(int((holds == index).sum()) for index in range(len(shards)))
        return Release(site, memory, ids, name, weight_hash(model, site), calibration, written)

    def _asked(self, questions: Sequence[Sequence[str]], salt: str) -> tuple[list[str], Tensor]:
        """Return each phrasing in one context, and the index of its question."""
        rng = random.Random(f"{self.seed}:{salt}")
        asked, which = [], []
        for index, phrasings in enumerate(questions):
            for prompt in phrasings:
                asked.append(rng.choice(self.contexts.before(prompt, rng)))
                which.append(index)
        return asked, torch.tensor(which, dtype=torch.long)

    def _space(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, site: Site) -> Space:
        if not self.questions:
            return Space(torch.zeros(site.d_in), torch.ones(site.d_in))
        asked, which = self._asked(self.questions, "space")
        tokens = [prompt_tokens(tokenizer, prompt) for prompt in asked]
        return fit_space(last_inputs(model, site, tokens), which)

    def _calibrated(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        site: Site,
        space: Space,
        keys: Keys,
        own: Tensor,
    ) -> Calibration:
        asked, _ = self._asked([(prompt,) for prompt in self.negatives], "negatives")
        tokens = [prompt_tokens(tokenizer, prompt) for prompt in asked]
        rows = [last_inputs(model, site, tokens)] if tokens else []
        texts = [prompt_tokens(tokenizer, text)[:TEXT_TOKENS] for text in self.texts]
        for batch in capture(model, site, texts):
            rows += [
                batch.inputs[i, 1 : len(texts[row])].float().cpu()
                for i, row in enumerate(batch.rows)
            ]
        negatives = torch.cat(rows) if rows else torch.zeros(0, site.d_in)
        cosine, _ = best_match(space(negatives), keys)
        low = own.quantile(LOW_QUANTILE) if len(own) else torch.ones(())
        found = calibrate(low[None], cosine, self.false_fire, self.lean)
        threshold = max(found.threshold, self.floor)
        return replace(found, threshold=threshold, questions=len(self.questions))
