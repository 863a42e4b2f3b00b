"""Which answers a local reader can write at all: facts whose words stand in the text.

The constraint goes through lm-format-enforcer byte by byte: a byte is a character of the parser,
so that a letter that the tokenizer spells in pieces can be written too. Every state can be
continued to the end of a whole answer, and how long one gets is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from lmformatenforcer import CharacterLevelParser

from ingest.sentences import is_cut

MAX_SUBJECT_BYTES = 200
MAX_OBJECT_BYTES = 300

_OPEN, _CLOSE = '{"facts": [', "]}"
_SUBJECT, _RELATION, _OBJECT, _END = '"subject": "', ', "relation": "', ', "object": "', "}"
_NEXT = " {"
#: all of a fact but its three strings and their closing quotes
_FIXED_BYTES = len("{" + _NEXT + _SUBJECT + _RELATION + _OBJECT + _END + ",") + 3
_LONGEST_TOKEN = 256
_AT_EDGES = frozenset(" ,;")  #: cleaning takes them off


def as_bytes(text: str) -> str:
    """Return a text's UTF-8 bytes, each as the character of its number."""
    return text.encode().decode("latin-1")


def as_text(spelled: str) -> str:
    """Return the text that `as_bytes` made bytes of."""
    return spelled.encode("latin-1").decode()


class Spans:
    """Where in some sentences a string of an answer may begin, end and go on.

    Sentences that have a byte which the tokenizer cannot write alone are left out: within one,
    generation could come to a point without any way on.
    """

    def __init__(self, sentences: Sequence[str], writable: frozenset[str]) -> None:
        """Lay the sentences out one after another, as JSON spells them."""
        self.text = ""
        self._sentence_of: list[int] = []
        self.starts: tuple[int, ...] = ()
        self.longest_sentence = 0  #: bytes
        self._next_end: list[int] = []
        for sentence in sentences:
            spelled = [as_bytes(json.dumps(char, ensure_ascii=False)[1:-1]) for char in sentence]
            if writable.issuperset("".join(spelled)):
                self._add(sentence, spelled)

    def _add(self, sentence: str, spelled: list[str]) -> None:
        places = [len(self.text)]
        for one in spelled:
            places.append(places[-1] + len(one))
        cuts = [i for i in range(len(sentence) + 1) if is_cut(sentence, i)]
        starts = [i for i in cuts if _begins(sentence[i : i + 2])]
        ends = [places[i] for i in cuts if _begins(sentence[max(0, i - 2) : i][::-1])]
        self.longest_sentence = max(self.longest_sentence, places[-1] - places[0])
        number = self._sentence_of[-1] + 1 if self._sentence_of else 0
        self._sentence_of += [number] * (places[-1] - places[0] + 1)
        self._next_end += _next_ends(places[0], places[-1], ends)
        self.text += "".join(spelled) + "\0"  # stands for the sentence's end, and is in none
        self.starts += tuple(places[i] for i in starts if self._is_start(places[i]))

    def _is_start(self, place: int) -> bool:
        end = self._next_end[place + 1]
        return 0 <= end <= place + MAX_SUBJECT_BYTES

    def ends(self, place: int) -> bool:
        """Tell whether a string may end before a place."""
        return self._next_end[place] == place

    def next_end(self, place: int) -> int:
        """Return the nearest place from one on before which a string may end; -1 without one."""
        return self._next_end[place]

    def starts_beside(self, places: Iterable[int]) -> tuple[int, ...]:
        """Return the starts in the sentences that the places lie in."""
        wanted = {self._sentence_of[place] for place in places}
        return tuple(s for s in self.starts if self._sentence_of[s] in wanted)


def _begins(two: str) -> bool:
    """Tell whether a string may begin so: a word, or one mark and a word, such as .it or (M)."""
    return two[:1].isalnum() or (two[:1] not in _AT_EDGES and two[1:].isalnum())


def _next_ends(first: int, last: int, ends: list[int]) -> list[int]:
    """Return for each place up to ``last`` the nearest end from it on; -1 where there is none."""
    known = set(ends)
    found, near = [-1] * (last - first + 1), -1
    for place in range(last, first - 1, -1):
        near = place if place in known else near
        found[place - first] = near
    return found


@dataclass(frozen=True)
class Form:
    """What one answer may hold."""

    spans: Spans
    relations: tuple[str, ...]
    max_facts: int
    budget_bytes: int  #: from here on no further fact is begun

    @property
    def longest_fact(self) -> int:
        """Return the most bytes that a fact takes."""
        most = self.spans.longest_sentence
        strings = min(most, MAX_SUBJECT_BYTES) + min(most, MAX_OBJECT_BYTES)
        return _FIXED_BYTES + max(map(len, self.relations)) + strings

    @property
    def longest_answer(self) -> int:
        """Return the most bytes that an answer takes: so many tokens are enough for any."""
        return len(_OPEN + _CLOSE) + self.budget_bytes + self.longest_fact


@dataclass(frozen=True)
class _State:
    step: str = "literal"  #: literal, first, subject, relation, object, more, done
    then: str = "first"  #: the step after a literal
    literal: str = _OPEN  #: what of it is left to write
    places: tuple[int, ...] = ()  #: in a string: where in the sentences it may be
    written: int = 0  #: bytes of the string so far
    names: tuple[str, ...] = ()  #: in a relation: what is left of those it may be
    facts: int = 0
    total: int = 0  #: bytes of the answer so far


class Spelling(CharacterLevelParser):  # type: ignore[misc]  # the library has no type information
    """One state of writing an answer; adding a character makes another."""

    def __init__(self, form: Form, state: _State | None = None) -> None:
        super().__init__()
        self._form, self._state = form, state or _State()

    def get_allowed_characters(self) -> str:
        """Return the bytes, as characters, that can come next."""
        state, spans = self._state, self._form.spans
        if state.step == "literal":
            return state.literal[0]
        if state.step == "first":
            return "{]" if self._has_room() else "]"
        if state.step == "more":
            return ",]" if self._has_room() else "]"
        if state.step == "relation":
            return "".join({name[:1] or '"' for name in state.names})
        if state.step in ("subject", "object"):
            # A string that could end here may have too long a word next.
            on = [place for place in state.places if self._goes_on(state, place + 1)]
            allowed = {spans.text[place] for place in on}
            is_whole = state.written and any(map(spans.ends, state.places))
            return "".join(allowed | ({'"'} if is_whole else set()))
        return ""

    def add_character(self, new_character: str) -> Spelling:
        """Return the state after an allowed character."""
        state = replace(self._state, total=self._state.total + 1)
        return Spelling(self._form, self._after(state, new_character))

    def can_end(self) -> bool:
        """Tell whether the answer is whole."""
        return self._state.step == "done"

    def cache_key(self) -> Hashable:
        """Return what decides the tokens that are allowed next."""
        state = self._state
        left = self._form.budget_bytes - state.total
        # How much was written matters to a token that the room may end in, and to no other.
        total = state.total if 0 < left <= _LONGEST_TOKEN else -1 if left > 0 else -2
        facts = state.facts if state.step in ("first", "object", "more") else 0
        return replace(state, total=total, facts=facts)

    def _has_room(self) -> bool:
        form, state = self._form, self._state
        is_short = state.total < form.budget_bytes and state.facts < form.max_facts
        return is_short and bool(form.spans.starts)

    def _after(self, state: _State, char: str) -> _State:
        if state.step == "literal":
            rest = replace(state, literal=state.literal[1:])
            return rest if rest.literal else self._begun(rest)
        if state.step in ("first", "more"):
            return self._chosen(state, char)
        if state.step == "relation":
            return _in_relation(state, char)
        return self._in_string(state, char)

    def _begun(self, state: _State) -> _State:
        """Return the state at the start of what follows a literal."""
        step = state.then
        if step == "subject":
            return replace(state, step=step, places=self._form.spans.starts, written=0)
        if step == "relation":
            return replace(state, step=step, names=self._form.relations)
        return replace(state, step=step, written=0)

    def _chosen(self, state: _State, char: str) -> _State:
        if char == "]":
            return replace(state, step="literal", literal=_CLOSE[1:], then="done")
        literal = _SUBJECT if char == "{" else _NEXT + _SUBJECT
        return replace(state, step="literal", literal=literal, then="subject")

    def _goes_on(self, state: _State, place: int) -> bool:
        """Tell whether a string that goes on up to a place can still end within its limit."""
        spans = self._form.spans
        if spans.text[place - 1] == "\0":
            return False
        end = spans.next_end(place)
        limit = MAX_SUBJECT_BYTES if state.step == "subject" else MAX_OBJECT_BYTES
        return end >= 0 and end - place + state.written + 1 <= limit

    def _in_string(self, state: _State, char: str) -> _State:
        spans = self._form.spans
        on = tuple(
            p + 1 for p in state.places if spans.text[p] == char and self._goes_on(state, p + 1)
        )
        if char != '"' or on:  # a quote of the text comes after a backslash, one that ends does not
            return replace(state, places=on, written=state.written + 1)
        if state.step == "object":
            facts = state.facts + 1
            return replace(state, step="literal", literal=_END, then="more", places=(), facts=facts)
        beside = spans.starts_beside(p for p in state.places if spans.ends(p))
        return replace(state, step="literal", literal=_RELATION, then="relation", places=beside)


def _in_relation(state: _State, char: str) -> _State:
    if char == '"':
        return replace(state, step="literal", literal=_OBJECT, then="object", names=())
    return replace(state, names=tuple(name[1:] for name in state.names if name[:1] == char))
