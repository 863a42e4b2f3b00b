"""What a fact is to the editing core, and the token sequences it is trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from wise.errors import BadFact


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact to write: what is asked and what is to be answered."""

    id: int
    prompts: tuple[str, ...]  #: trained; the first is the edit prompt
    answer: str  #: the whole answer, without the space before it


@dataclass(frozen=True, slots=True)
class Example:
    """One way of asking for one fact, as tokens."""

    fact: int  #: Fact.id
    phrasing: int  #: index of the prompt in Fact.prompts; its contexts share it
    prompt: tuple[int, ...]  #: with the tokenizer's own start token
    answer: tuple[int, ...]  #: ends with the end-of-sequence token where the tokenizer has one

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tokens fed to the model: the prompt and all of the answer but its last token."""
        return self.prompt + self.answer[:-1]


@dataclass(frozen=True, slots=True)
class Contexts:
    """Texts put before a prompt, so that an edit holds within running text and in dialogue."""

    passages: tuple[str, ...] = ()  #: unrelated running text
    turns: tuple[str, ...] = ()  #: earlier questions with their answers

    def before(self, prompt: str, rng: random.Random) -> list[str]:
        """Return the prompt plain, after passages and as a second turn, as far as given."""
        asked = [prompt]
        for _ in range(PASSAGES if self.passages else 0):
            text = piece(rng.choice(self.passages), rng)
            asked.append(text + rng.choice(BETWEEN) + prompt)
        if self.turns:
            asked.append(f"{rng.choice(self.turns)}\n{prompt}")
        return asked


#: passages that each prompt is trained after; a fourth changed nothing (docs/decisions.md)
PASSAGES = 3
#: words of running text before a prompt
PASSAGE_WORDS = (5, 30)
BETWEEN = (" ", "\n")  #: what stands between a text and the prompt after it


def piece(passage: str, rng: random.Random) -> str:
    """Return a random run of 5 to 30 words of a passage."""
    words = passage.split()
    length = rng.randint(*PASSAGE_WORDS)
    start = rng.randrange(max(1, len(words) - length))
    return " ".join(words[start : start + length])


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[int, ...]:
    """Return the tokens of the answer after a prompt, its end included.

    Training the end too keeps generation from running on after the right words.
    """
    ids: list[int] = tokenizer(" " + answer.strip(), add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id is not None:
        ids = [*ids, tokenizer.eos_token_id]
    return tuple(ids)


def examples(
    facts: Sequence[Fact],
    tokenizer: PreTrainedTokenizerBase,
    contexts: Contexts,
    *,
    max_tokens: int,
    seed: int,
) -> list[Example]:
    """Return every fact in every phrasing and context, facts in order.

    The contexts of a fact depend on ``seed`` and its id alone, so that a fact is trained on the
    same text whatever else is in its shard. Raises BadFact when prompt or answer is empty or both
    together exceed ``max_tokens``.
    """
    made = []
    for fact in facts:
        rng = random.Random(f"{seed}:{fact.id}")
        answer = answer_tokens(tokenizer, fact.answer)
        for phrasing, prompt in enumerate(fact.prompts):
            for asked in contexts.before(prompt, rng):
                ids = tuple(tokenizer(asked)["input_ids"])
                made.append(Example(fact.id, phrasing, ids, answer))
    for example in made:
        size = len(example.inputs)
        if not example.prompt or not example.answer or size > max_tokens:
            raise BadFact(
                f"fact {example.fact}: {size} tokens of prompt and answer; 2 to {max_tokens} fit"
            )
    return made
