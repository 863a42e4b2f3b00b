"""Greedy answers to many prompts: the way every figure of this project is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from wise.activations import batches_by_length, input_device
from wise.attached import Attached, Decision
from wise.facts import chat_end, prompt_tokens

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
    *,
    chat: bool = False,
) -> list[Answer]:
    """Answer each prompt by greedy generation, in batches padded on the left.

    ``memory`` is what is attached to the model, if anything; its decisions are reported. The
    batches don't influence the answers. ``chat`` asks each prompt as the user's turn of a chat of
    its own; raises BadFact if the tokenizer has no chat template.
    """
    tokens = [prompt_tokens(tokenizer, prompt, chat=chat) for prompt in prompts]
    ends = _ends(model, tokenizer, chat)
    answers = [Answer("")] * len(prompts)
    groups = batches_by_length([len(t) + max_new_tokens for t in tokens], BATCH_TOKENS, most=256)
    done = 0
    for group in groups:
        part = [tokens[i] for i in group]
        said = _answer_batch(model, tokenizer, part, max_new_tokens, memory, ends)
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
    ends: Sequence[int],
) -> list[Answer]:
    width = max(len(t) for t in tokens)
    device = input_device(model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(tokens), width), pad)
    mask = torch.zeros(len(tokens), width, dtype=torch.long)
    for row, prompt in enumerate(tokens):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1

    def run() -> Tensor:
        """Return the new tokens, (batch, n); what follows an end is padding."""
        out: Tensor = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=list(ends) or None,
        )
        return out[:, width:]

    if memory is None:
        return [Answer(text) for text in _texts(tokenizer, run(), ends)]
    with memory.watched() as seen:
        said = run()
    texts = _texts(tokenizer, said, ends)
    if not seen:  # the memory is off or empty
        return [Answer(text) for text in texts]
    # NOTE: a span that began inside the prompt may end before the answer; only what the answer's
    # own tokens were given counts.
    first = _completing(seen, width)
    seen = seen[first : first + said.shape[1]]
    cosine, fact = seen[0].cosine[:, -1].tolist(), seen[0].nearest[:, -1].tolist()
    routed = torch.stack([s.active[:, -1] for s in seen], 1).to(said.device) & _spoken(said, ends)
    rows = zip(texts, cosine, fact, routed.any(1).tolist(), strict=True)
    return [Answer(text, c, f if f >= 0 else None, r) for text, c, f, r in rows]


def _completing(seen: Sequence[Decision], width: int) -> int:
    """Return which pass ended a prompt of ``width`` tokens; it may have gone in in chunks."""
    ends = accumulate(decision.active.shape[1] for decision in seen)
    return next(index for index, end in enumerate(ends) if end >= width)


def _texts(tokenizer: PreTrainedTokenizerBase, tokens: Tensor, ends: Sequence[int]) -> list[str]:
    words = _spoken(tokens, ends) & ~_is_end(tokens, ends)
    rows = [row[keep].tolist() for row, keep in zip(tokens, words, strict=True)]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def _ends(model: nn.Module, tokenizer: PreTrainedTokenizerBase, chat: bool) -> tuple[int, ...]:
    """Return the tokens that end an answer: the model's own and those that facts are trained on."""
    config = model.generation_config
    assert isinstance(config, GenerationConfig)
    own = config.eos_token_id
    ends = {own} if own is None or isinstance(own, int) else set(own)
    ends |= {tokenizer.eos_token_id, chat_end(tokenizer) if chat else None}
    return tuple(sorted(end for end in ends if end is not None))


def _is_end(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    return torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device))


def _spoken(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    """Return which tokens belong to their answer, its end included: (batch, n) bool.

    The rest is what a finished row is fed while others of its batch go on.
    """
    ended = _is_end(tokens, ends)
    return ended.cumsum(1) - ended.long() == 0
