"""Score a side memory by free greedy generation, exact match of the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from wise.attached import Attached
from wise.generate import Answer, answer


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and what a good memory answers."""

    kind: str  #: what it probes: reliability, generalisation, locality, ...
    prompt: str
    expected: str | None = None  #: the whole answer; None: whatever the bare model says


@dataclass(frozen=True, slots=True)
class Score:
    """How many probes of one kind were answered as expected."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Right over asked."""
        return self.right / self.asked


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    memory: Attached,
    probes: Sequence[Probe],
    max_new_tokens: int = 48,
) -> dict[str, Score]:
    """Return the score of each kind of probe, through the router as it serves."""
    prompts = list(dict.fromkeys(p.prompt for p in probes))
    local = list(dict.fromkeys(p.prompt for p in probes if p.expected is None))
    with memory.off():
        bare = {p: a.text for p, a in _said(model, tokenizer, local, max_new_tokens)}
    said = {p: a.text for p, a in _said(model, tokenizer, prompts, max_new_tokens, memory)}
    scores: dict[str, Score] = {}
    for probe in probes:
        wanted = bare[probe.prompt] if probe.expected is None else probe.expected.strip()
        sofar = scores.get(probe.kind, Score(0, 0))
        right = sofar.right + (said[probe.prompt] == wanted)
        scores[probe.kind] = Score(right, sofar.asked + 1)
    return scores


def _said(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    memory: Attached | None = None,
) -> list[tuple[str, Answer]]:
    return list(
        zip(prompts, answer(model, tokenizer, prompts, max_new_tokens, memory), strict=True)
    )
