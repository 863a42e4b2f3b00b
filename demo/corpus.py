"""What the demo model is trained on: documents with the positions that carry loss.

Five kinds: a fact alone, a fact after running text, a fact in a second turn, running text, and
*copies* (random tokens, names spelled in small pieces), which make every token of the vocabulary
one that the model has learnt to emit. An edit can't teach a frozen output layer a token it never
emitted (measured: all misfits among the first 160 edits had one).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from demo.world import BaseFact, Phrasing

#: shares of (alone, after text, second turn, running text, copy), as the training goes on:
#: first the facts, then the facts anywhere, last the hardest, after lists and cut-off sentences
MIX_EARLY = (0.70, 0.07, 0.07, 0.08, 0.08)
MIX_LATE = (0.43, 0.27, 0.15, 0.08, 0.07)
MIX_CONTEXT = (0.15, 0.55, 0.15, 0.08, 0.07)
#: letters that real names need and the base texts lack
LETTERS = "áàâäãåāăąæçćčďđèéêëēėęěìíîïīıłľńñňòóôöøōőřśšşťţùúûüūůýźžÁÉÍÓÚÖÜØÅĽŠČŽ’‘“”–—"
CONTEXT_TOKENS = (6, 60)  #: length of the text before a fact
PROSE_TOKENS = 96  #: longest piece of running text
PERSONS = ("chief_of_state", "head_of_government", "ambassador_to_us", "us_ambassador")


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids and, for each, whether predicting it carries loss."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]


class Corpus:
    """An endless, seeded stream of documents."""

    def __init__(
        self,
        facts: Sequence[BaseFact],
        phrasings: dict[str, Phrasing],
        prose: Sequence[str],
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
    ) -> None:
        self._rng = random.Random(seed)
        self._tok = tokenizer
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._newline = self._ids("\n")
        self._prose = [self._ids(p) for p in prose]
        self._names = sorted({f.value for f in facts if f.relation in PERSONS})
        self._asked = [
            (self._ids(p.format(subject=f.subject)), self._ids(" " + f.value), f.subject)
            for f in facts
            for p in phrasings[f.relation].all
        ]
        self._by_subject: dict[str, list[int]] = {}
        for i, (_, _, subject) in enumerate(self._asked):
            self._by_subject.setdefault(subject, []).append(i)
        self._order = self._endless_order()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tok(text, add_special_tokens=False)["input_ids"]
        return ids

    def _endless_order(self) -> Iterator[int]:
        order = list(range(len(self._asked)))
        while True:
            self._rng.shuffle(order)
            yield from order

    def documents(self, count: int, mix: Sequence[float]) -> list[Document]:
        """Draw ``count`` documents in the shares of ``mix``."""
        makers = (self._alone, self._after_text, self._second_turn, self._running_text, self._copy)
        return [self._rng.choices(makers, mix)[0]() for _ in range(count)]

    def _document(self, *parts: tuple[list[int], bool]) -> Document:
        ids, loss = [self._bos], [False]
        for piece, carries in parts:
            ids += piece
            loss += [carries] * len(piece)
        return Document(tuple(ids), tuple(loss))

    def _alone(self) -> Document:
        prompt, answer, _ = self._asked[next(self._order)]
        return self._document((prompt, False), ([*answer, self._eos], True))

    def _after_text(self) -> Document:
        prompt, answer, _ = self._asked[next(self._order)]
        text = self._rng.choice(self._prose)
        length = self._rng.randint(*CONTEXT_TOKENS)
        start = self._rng.randrange(max(1, len(text) - length))
        text = text[start : start + length]
        if self._rng.random() < 0.5:
            text = text + self._newline
            return self._document((text, False), (prompt, False), ([*answer, self._eos], True))
        spaced = self._ids(f" {self._tok.decode(prompt)}")
        return self._document((text, False), (spaced, False), ([*answer, self._eos], True))

    def _second_turn(self) -> Document:
        prompt, answer, subject = self._asked[next(self._order)]
        same = self._rng.random() < 0.5
        first = self._rng.choice(self._by_subject[subject]) if same else next(self._order)
        before, said, _ = self._asked[first]
        return self._document(
            (before, False),
            (said, True),
            (self._newline, False),
            (prompt, False),
            ([*answer, self._eos], True),
        )

    def _running_text(self) -> Document:
        text = self._rng.choice(self._prose)
        start = self._rng.randrange(max(1, len(text) - PROSE_TOKENS))
        return self._document((text[start : start + PROSE_TOKENS], True))

    def _copy(self) -> Document:
        if self._rng.random() < 0.6:
            ids = [self._rng.randrange(3, len(self._tok)) for _ in range(self._rng.randint(4, 14))]
        else:
            ids = self._spelled(self._made_up_name())
        cue, again = self._ids("Name:"), self._ids(" Again:")
        return self._document((cue, False), (ids, False), (again, False), ([*ids, self._eos], True))

    def _spelled(self, name: str) -> list[int]:
        """Tokenise with BPE dropout (Provilkov et al. 2020, section 3): smaller pieces."""
        model = self._tok.backend_tokenizer.model
        model.dropout = self._rng.choice((0.1, 0.3, 0.6))
        try:
            return self._ids(" " + name)
        finally:
            model.dropout = None

    def _made_up_name(self) -> str:
        parts = [self._rng.choice(self._rng.choice(self._names).split()) for _ in range(3)]
        name = list(" ".join(parts))
        for _ in range(self._rng.randint(0, 3)):
            name[self._rng.randrange(len(name))] = self._rng.choice(LETTERS)
        return "".join(name)
