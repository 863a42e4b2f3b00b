"""Greedy answers to many prompts: the way every figure of this project is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from wise.activations import batches_by_length
from wise.memory import Attached

BATCH_TOKENS = 16384  #: padded tokens of prompt and answer in one batch


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole greedy answer, and what the router made of the prompt."""

    text: str  #: stripped of surrounding white space
    cosine: float | None = None  #: best match at the prompt's last token; None without a memory
    fact: int | None = None  #: index in the release of the fact that it matched
    routed: bool = False  #: the side memory answered some token


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    memory: Attached | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Answer each prompt by greedy generation, in batches padded on the left.

    ``memory`` is what is attached to the model, if anything; its decisions are reported. The
    batches don't influence the answers.
    """
    tokens = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    answers = [Answer("")] * len(prompts)
    groups = batches_by_length([len(t) + max_new_tokens for t in tokens], BATCH_TOKENS, most=256)
    done = 0
    for group in groups:
        said = _answer_batch(model, tokenizer, [tokens[i] for i in group], max_new_tokens, memory)
        for index, one in zip(group, said, strict=True):
            answers[index] = one
        done += len(group)
        if progress:
            progress(done, len(prompts))
    return answers


@torch.no_grad()
def _answer_batch(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[Sequence[int]],
    max_new_tokens: int,
    memory: Attached | None,
) -> list[Answer]:
    width = max(len(t) for t in tokens)
    device = next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(tokens), width), pad)
    mask = torch.zeros(len(tokens), width, dtype=torch.long)
    for row, prompt in enumerate(tokens):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1

    def run() -> list[str]:
        out = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
        )
        texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    if memory is None:
        return [Answer(text) for text in run()]
    with memory.watched() as seen:
        texts = run()
    if not seen:  # the memory is off or empty
        return [Answer(text) for text in texts]
    cosine, fact = seen[0].cosine[:, -1].tolist(), seen[0].nearest[:, -1].tolist()
    # NOTE: a span that began inside the prompt may end before the answer; only what the answer's
    # own tokens were given counts.
    routed = torch.stack([s.active[:, -1] for s in seen]).any(0)
    rows = zip(texts, cosine, fact, routed.tolist(), strict=True)
    return [Answer(text, c, f if f >= 0 else None, r) for text, c, f, r in rows]
