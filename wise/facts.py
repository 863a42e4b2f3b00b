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
    shared: int = 0  #: leading tokens of ``prompt`` that are a context other examples share

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tokens fed to the model: the prompt and all of the answer but its last token."""
        return self.prompt + self.answer[:-1]


PASSAGES = 4  #: pieces of running text that the edit prompt is trained after (docs/decisions.md)
#: different pieces of passages and earlier turns that the facts of a shard share: as good as a
#: piece of its own for each prompt, and each is run once (docs/decisions.md)
POOL_PASSAGES, POOL_TURNS = 12, 4
#: words of running text before a prompt
PASSAGE_WORDS = (5, 30)
BETWEEN = (" ", "\n")  #: what stands between a text and the prompt after it
ANCHOR = ":"  #: stands for any prompt where only what comes after it matters
MARK = "WISED"  #: stands for an assistant's words in a rendered chat


@dataclass(frozen=True, slots=True)
class Contexts:
    """Texts put before a prompt, so that an edit holds within running text and in dialogue."""

    passages: tuple[str, ...] = ()  #: unrelated running text
    turns: tuple[str, ...] = ()  #: earlier questions with their answers
    chat: bool = False  #: also ask through the tokenizer's chat template

    def before(self, prompt: str, rng: random.Random) -> list[str]:
        """Return the prompt plain, after a passage and as a second turn, as far as given."""
        asked = [prompt]
        if self.passages:
            asked.append(piece(rng.choice(self.passages), rng) + rng.choice(BETWEEN) + prompt)
        if self.turns:
            asked.append(f"{rng.choice(self.turns)}\n{prompt}")
        return asked

    def pools(self, seed: int) -> tuple[list[str], list[str]]:
        """Return the pieces of passages and the earlier turns that training draws from."""
        rng = random.Random(f"{seed}:contexts")
        count = POOL_PASSAGES if self.passages else 0
        pieces = [piece(rng.choice(self.passages), rng) + rng.choice(BETWEEN) for _ in range(count)]
        turns = rng.sample(self.turns, min(POOL_TURNS, len(self.turns)))
        return pieces, [f"{turn}\n" for turn in turns]


def piece(passage: str, rng: random.Random) -> str:
    """Return a random run of 5 to 30 words of a passage."""
    words = passage.split()
    length = rng.randint(*PASSAGE_WORDS)
    start = rng.randrange(max(1, len(words) - length))
    return " ".join(words[start : start + length])


def answer_tokens(
    tokenizer: PreTrainedTokenizerBase, answer: str, *, chat: bool = False
) -> tuple[int, ...]:
    """Return the tokens of the answer after a prompt, its end included.

    Training the end too keeps generation from running on after the right words. After a prompt
    the answer begins with a space; after a chat template with what the template puts there, most
    often nothing. Raises BadFact where ``chat`` is asked of a tokenizer without a template.
    """
    if not chat:
        ids, ends = _continued(tokenizer, ANCHOR, " " + answer.strip()), tokenizer.eos_token_id
        return (*ids, *([] if ends is None else [ends]))
    before = _rendered(tokenizer, ANCHOR)
    lead, end = _around(tokenizer)
    ids = _continued(tokenizer, before, lead + answer.strip())
    return (*ids, *([] if end is None else [end]))


def chat_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that ends an assistant's turn, None where nothing does.

    It is often another than the end-of-sequence token, such as <|im_end|>; where the template
    puts no token of its own there, it is that one. Raises BadFact where there is no template.
    """
    return _around(tokenizer)[1]


def span(tokenizer: PreTrainedTokenizerBase, answer: str, contexts: Contexts) -> int:
    """Return how many tokens an answer takes at most, however it is asked for, its end included."""
    asked = (False, True) if contexts.chat else (False,)
    return max(len(answer_tokens(tokenizer, answer, chat=chat)) for chat in asked)


def _continued(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int]:
    """Return the tokens of ``text`` where it goes on after ``before``.

    Alone it may come out otherwise: some tokenizers put a space before whatever they are given.
    """
    first: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    both: list[int] = tokenizer(before + text, add_special_tokens=False)["input_ids"]
    if first and both[: len(first)] == first:
        return both[len(first) :]
    alone: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return alone


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str | None = None) -> str:
    """Return the text of a chat: up to where the answer begins, or with it to the turn's end."""
    if not tokenizer.chat_template:
        raise BadFact(
            f"{type(tokenizer).__name__} has no chat template to ask through",
            hint="turn chat off, or use a model whose tokenizer has a chat template",
        )
    turns = [{"role": "user", "content": prompt}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    text = tokenizer.apply_chat_template(
        turns, add_generation_prompt=answer is None, tokenize=False
    )
    assert isinstance(text, str)
    return text


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[str, int | None]:
    """Return the space before an assistant's words and the token after them."""
    asked = _rendered(tokenizer, ANCHOR)
    before, _, after = _rendered(tokenizer, ANCHOR, MARK).partition(MARK)
    between = before[len(asked) :] if before.startswith(asked) else ""
    ids: list[int] = tokenizer(after.strip(), add_special_tokens=False)["input_ids"]
    own = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    # Templates differ in whether words come between, such as an empty thought: only space is kept.
    lead = between if not between.strip() else ""
    return lead, ids[0] if ids and ids[0] in own else tokenizer.eos_token_id


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool = False
) -> tuple[int, ...]:
    """Return the tokens of a prompt: as it stands, or as the user's turn of a chat.

    Raises BadFact where ``chat`` is asked of a tokenizer without a template.
    """
    if not chat:
        return tuple(tokenizer(prompt)["input_ids"])
    # The template writes the start token itself.
    return tuple(tokenizer(_rendered(tokenizer, prompt), add_special_tokens=False)["input_ids"])


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
    together exceed ``max_tokens``, or when a chat is asked of a tokenizer without a template.
    """
    pools = contexts.pools(seed)
    made = []
    for fact in facts:
        if not fact.answer.strip():
            raise BadFact(f"fact {fact.id}: the answer is empty")
        rng = random.Random(f"{seed}:{fact.id}")
        plain = _plain(fact, tokenizer, contexts.chat)
        for example in plain:
            _check(example, max_tokens)
        around = _in_contexts(fact, tokenizer, pools, rng)
        # A context that doesn't fit is left out; the fact itself must fit.
        made += plain + [example for example in around if len(example.inputs) <= max_tokens]
    return made


def _plain(fact: Fact, tokenizer: PreTrainedTokenizerBase, chat: bool) -> list[Example]:
    """Return the fact in each phrasing by itself and, if asked, through the chat template."""
    made = []
    for through in (False, True)[: 1 + chat]:
        answer = answer_tokens(tokenizer, fact.answer, chat=through)
        for phrasing, prompt in enumerate(fact.prompts):
            ids = prompt_tokens(tokenizer, prompt, chat=through)
            made.append(Example(fact.id, phrasing, ids, answer))
    return made


def _in_contexts(
    fact: Fact,
    tokenizer: PreTrainedTokenizerBase,
    pools: tuple[list[str], list[str]],
    rng: random.Random,
) -> list[Example]:
    """Return the edit prompt after pieces of text and, every other phrasing, in a second turn."""
    passages, turns = pools
    answer, made = answer_tokens(tokenizer, fact.answer), []
    for phrasing, prompt in enumerate(fact.prompts):
        before = rng.sample(passages, min(PASSAGES, len(passages))) if phrasing == 0 else []
        if turns and phrasing % 2 == 0:
            before.append(rng.choice(turns))
        for context in before:
            ids = prompt_tokens(tokenizer, context + prompt)
            made.append(Example(fact.id, phrasing, ids, answer, _common(ids, tokenizer, context)))
    return made


def _common(ids: tuple[int, ...], tokenizer: PreTrainedTokenizerBase, context: str) -> int:
    """Return how many leading tokens of ``ids`` are the context's own."""
    own = tokenizer(context)["input_ids"]
    same = 0
    for mine, theirs in zip(ids, own, strict=False):
        if mine != theirs:
            break
        same += 1
    return min(same, len(ids) - 1)  # the prompt's last token must be captured


def _check(example: Example, max_tokens: int) -> None:
    size = len(example.inputs)
    if not example.prompt or not example.answer or size > max_tokens:
        raise BadFact(
            f"fact {example.fact}: {size} tokens of prompt and answer; 2 to {max_tokens} fit"
        )
