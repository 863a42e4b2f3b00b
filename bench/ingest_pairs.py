"""Pairs of statements that say the same fact, or only seem to: ``labelled()``.

Made from the demo's factbook by rules, each of which knows the label by what it does to a
statement. Nothing of the code under test is asked. A pair's first statement is held, its second
comes in later.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from bench.ingest_words import (
    LONGER,
    NEGATED,
    OTHER_TIME,
    OTHERWISE,
    SIBLING,
    SIBLINGS,
    TITLES,
)
from demo import world

SEED = 11
NEARLY = 0.8  #: share of letters that two different names have in common, to be near
_MONTHS = "January February March April May June July August September October November December"
MONTHS = tuple(_MONTHS.split())

Slot = tuple[str, str]  #: subject, relation


@dataclass(frozen=True, slots=True)
class Statement:
    """What a source says."""

    subject: str
    relation: str
    object: str
    prompt: str | None = None  #: asked so; None: stated by subject and relation

    @property
    def row(self) -> dict[str, str]:
        """The statement as a row of a correction log."""
        if self.prompt is None:
            return {"subject": self.subject, "relation": self.relation, "object": self.object}
        return {"prompt": self.prompt.format(subject=self.subject), "right": self.object}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two statements and whether they say the same."""

    kind: str
    same: bool
    held: Statement
    new: Statement


class _Source:
    """The factbook's newest state, and draws from it."""

    def __init__(self) -> None:
        self.rng = random.Random(SEED)
        self.newest = {(u.subject, u.relation): u for u in world.updates()}
        self.values = {(b.subject, b.relation): b.value for b in world.base_facts()}
        self.values |= {slot: update.new for slot, update in self.newest.items()}

    def statement(self, slot: Slot) -> Statement:
        """Return what the factbook says of a slot."""
        return Statement(*slot, self.values[slot])

    def draw(self, count: int, fits: Callable[[Statement], bool]) -> list[Statement]:
        """Return ``count`` statements, or as many as fit."""
        slots = self.rng.sample(sorted(self.values), len(self.values))
        every = (self.statement(slot) for slot in slots)
        return [said for said in every if fits(said)][:count]

    def offices(self, count: int) -> list[Statement]:
        """Return statements of offices whose holder changed."""
        return self.draw(count, lambda said: (said.subject, said.relation) in self.newest)


def letters(text: str) -> str:
    """Return a text without accents, case and all but letters and digits."""
    bare = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in bare if c.isalnum())


def untitled(name: str) -> str | None:
    """Return a name without its title, None where it has none that is left out."""
    for title in sorted(TITLES, key=len, reverse=True):
        if name.startswith(f"{title} ") and " of " not in name:
            return name.removeprefix(f"{title} ")
    return None


def accented(text: str) -> str:
    """Return a text with an accent where it had none, or without those that it had."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if plain != text:
        return plain
    marks = {"a": "á", "e": "é", "o": "ö", "i": "í", "u": "ü"}
    place = next((i for i in range(len(text) - 1, 0, -1) if text[i] in marks), None)
    return text if place is None else text[:place] + marks[text[place]] + text[place + 1 :]


def one_letter_apart(name: str, rng: random.Random) -> str:
    """Return another name: a letter of its last word is another one."""
    head, _, last = name.rpartition(" ")
    place = rng.randrange(1, len(last))
    letter = rng.choice([c for c in "bdgklmnprstvz" if c != last[place].casefold()])
    return f"{head} {last[:place]}{letter}{last[place + 1 :]}".strip()


def with_middle_name(name: str, rng: random.Random) -> str:
    """Return another person's name: a middle name more, or another initial."""
    if (initial := re.search(r"(?<= )[A-Z](?=\. )", name)) is not None:
        other = rng.choice([c for c in "ABCDEFGHJKLM" if c != initial[0]])
        return name[: initial.start()] + other + name[initial.end() :]
    head, _, last = name.rpartition(" ")
    return f"{head} {rng.choice(['Omar', 'Luis', 'Irene', 'Pavel'])} {last}"


def labelled() -> list[Pair]:
    """Return all pairs; the same ones each time."""
    source = _Source()
    # First those that need a slot to be free of what their second statement says.
    made = [*_sibling(source), *_other_slot(source), *_longer(source)]
    made += [*_otherwise(source), *_spelled(source), *_dated(source), *_bare(source)]
    made += [*_changed(source), *_nearly(source), *_turned(source)]
    return list(_consistent(made))


def _consistent(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Leave out pairs that another makes wrong: what is new in one must not be held in another."""
    held: set[Slot] = set()
    free: set[Slot] = set()
    for pair in pairs:
        slot, other = ((s.subject, s.relation) for s in (pair.held, pair.new))
        if slot in free or (not pair.same and slot != other and other in held):
            continue
        held.add(slot)
        if not pair.same and slot != other:
            free.add(other)
        yield pair


def distractors(pairs: Sequence[Pair]) -> list[Statement]:
    """Return the factbook's other statements, which a store holds beside those of the pairs."""
    source = _Source()
    taken = {letters(s.subject) + s.relation for p in pairs for s in (p.held, p.new)}
    slots = sorted(slot for slot in source.values if letters(slot[0]) + slot[1] not in taken)
    return [source.statement(slot) for slot in slots]


def _asked(said: Statement, words: dict[str, tuple[str, ...]], turn: int) -> Statement:
    wordings = words[said.relation]
    return replace(said, prompt=wordings[turn % len(wordings)])


def _configured(said: Statement, turn: int) -> Statement:
    return _asked(said, {name: p.all for name, p in world.phrasings().items()}, turn)


def _sibling(source: _Source) -> Iterator[Pair]:
    """Take another relation of one subject that has the same object."""
    for one, other in (*SIBLINGS, *((b, a) for a, b in SIBLINGS)):

        def fits(said: Statement, one: str = one, other: str = other) -> bool:
            beside = source.values.get((said.subject, other))
            return said.relation == one and beside == said.object

        for turn, held in enumerate(source.draw(14, fits)):
            new = replace(held, relation=other)
            yield Pair("other relation", False, held, _asked(new, SIBLING, turn))
            yield Pair("other relation", False, held, _configured(new, turn))


def _other_slot(source: _Source) -> Iterator[Pair]:
    """Take another subject, and an object that is the same or nearly."""

    def is_plain(said: Statement) -> bool:
        return said.object.isascii() and len(said.object) > 6

    def shared(said: Statement) -> bool:
        return is_plain(said) and bool(_holders(source, said))

    for turn, held in enumerate(source.draw(40, shared)):
        new = replace(held, subject=source.rng.choice(_holders(source, held)))
        asked = _asked(new, OTHERWISE, turn) if turn % 2 else new
        yield Pair("same object, other subject", False, held, asked)
    others = source.offices(80)
    for turn, held in enumerate(others[:40]):
        change = with_middle_name if turn % 2 else one_letter_apart
        new = replace(others[40 + turn], relation=held.relation)
        if (new.subject, new.relation) == (held.subject, held.relation):
            continue
        new = replace(new, object=change(held.object, source.rng))
        asked = _asked(new, OTHERWISE, turn) if turn % 3 else new
        yield Pair("near name, other subject", False, held, asked)


def _holders(source: _Source, said: Statement) -> list[str]:
    """Return the other subjects of which a relation has the same object."""
    return [
        subject
        for (subject, relation), value in sorted(source.values.items())
        if (relation, value) == (said.relation, said.object) and subject != said.subject
    ]


def _longer(source: _Source) -> Iterator[Pair]:
    """Ask about a country whose name holds the other's."""
    for turn, (shorter, longer) in enumerate(LONGER):
        relations = sorted(r for s, r in source.values if s == shorter)
        for relation in source.rng.sample(relations, min(3, len(relations))):
            held = source.statement((shorter, relation))
            new = replace(held, subject=longer)
            yield Pair("longer name", False, held, _asked(new, OTHERWISE, turn))


def _otherwise(source: _Source) -> Iterator[Pair]:
    """Ask otherwise, with and without the title."""
    for turn, held in enumerate(source.offices(50)):
        yield Pair("configured phrasing", True, held, _configured(held, turn))
    for turn, held in enumerate(source.offices(80)):
        yield Pair("other words", True, held, _asked(held, OTHERWISE, turn))
    changed = {relation for _, relation in source.newest}
    for turn, held in enumerate(source.draw(50, lambda said: said.relation not in changed)):
        yield Pair("other words", True, held, _asked(held, OTHERWISE, turn))
    titled = source.draw(130, lambda said: untitled(said.object) is not None)
    for turn, held in enumerate(titled):
        new = replace(held, object=untitled(held.object) or "")
        asked = (new, _configured(new, turn), _asked(new, OTHERWISE, turn))[turn % 3]
        yield Pair("title left out", True, held, asked)
    ambassadors = source.draw(40, lambda said: "ambassador" in said.relation)
    for turn, held in enumerate(ambassadors):
        new = replace(held, object=f"Ambassador {held.object}")
        asked = _asked(new, OTHERWISE, turn) if turn % 2 else new
        yield Pair("title added", True, held, asked)


def _spelled(source: _Source) -> Iterator[Pair]:
    """Write the same otherwise: accents, case, hyphens, quotes; articles, Saints of subjects."""
    for turn, held in enumerate(source.offices(40)):
        new = replace(held, object=accented(held.object))
        yield Pair("accents", True, held, _asked(new, OTHERWISE, turn) if turn % 2 else new)
    changes: tuple[Callable[[str], str], ...] = (
        str.upper,
        str.lower,
        lambda name: name.replace("-", " ") if "-" in name else f"{name}.",
        lambda name: name.replace("'", "\u2019") if "'" in name else name.replace(" ", "  "),
    )
    for turn, held in enumerate(source.offices(40)):
        new = replace(held, object=changes[turn % 4](held.object))
        yield Pair("spelling", True, held, _configured(new, turn) if turn % 2 else new)
    spelled = source.draw(60, lambda said: _respelled(said.subject) != said.subject)
    for turn, held in enumerate(spelled):
        new = replace(held, subject=_respelled(held.subject))
        asked = (new, _configured(new, turn), _asked(new, OTHERWISE, turn))[turn % 3]
        yield Pair("subject's spelling", True, held, asked)


def _respelled(subject: str) -> str:
    """Return another spelling of a country's name, itself where there is none."""
    for pattern, other in (
        (r"^The (?!Dominican)", ""),
        (r"^Saint ", "St. "),
        (r" and ", " & "),
        (r"-", " "),
        (r"^Cote d'", "Côte d\u2019"),
    ):
        if re.search(pattern, subject):
            return re.sub(pattern, other, subject)
    return subject


def _dated(source: _Source) -> Iterator[Pair]:
    """Write dates in another form, and other dates in the same."""
    dates = re.compile(r"(\d+) ([A-Z][a-z]+) (\d{4})")
    found = source.draw(
        90, lambda said: said.relation == "independence" and bool(dates.fullmatch(said.object))
    )
    for turn, held in enumerate(found):
        day, month, year = re.findall(r"\w+", held.object)
        if turn < 24:
            iso = f"{year}-{MONTHS.index(month) + 1:02d}-{int(day):02d}"
            form = (f"{month} {day}, {year}", iso)[turn % 2]
            yield Pair("date's form", True, held, replace(held, object=form))
            continue
        other_day, other_year = int(day) % 28 + 1, int(year) + (1 if turn % 2 else -10)
        other_month = MONTHS[(MONTHS.index(month) + 1) % 12]
        kind, changed = (
            ("date", f"{other_day} {month} {year}"),
            ("date", f"{day} {other_month} {year}"),
            ("number", f"{day} {month} {other_year}"),
        )[turn % 3]
        new = replace(held, object=changed)
        yield Pair(kind, False, held, _asked(new, OTHERWISE, turn) if turn % 2 else new)


def _bare(source: _Source) -> Iterator[Pair]:
    """Let both statements be questions of their own wording."""
    said = source.offices(60)
    for turn, held in enumerate(said[:20]):
        asked = _asked(held, OTHERWISE, turn)
        again = replace(asked, prompt=f"Q: {asked.prompt} A:" if turn % 2 else asked.prompt)
        yield Pair("bare, again", True, asked, replace(again, object=held.object.upper()))
    for turn, held in enumerate(said[20:35]):
        asked = _asked(held, OTHERWISE, turn)
        yield Pair("bare, other words", True, asked, _asked(held, OTHERWISE, turn + 1))
    for turn, held in enumerate(said[35:60]):
        asked = _asked(held, OTHERWISE, turn)
        other = replace(asked, subject=said[turn].subject)
        if turn % 2:
            other = replace(asked, object=one_letter_apart(held.object, source.rng))
        if other != asked:
            yield Pair("bare, other", False, asked, other)


def _changed(source: _Source) -> Iterator[Pair]:
    """Give a slot the value that it had before."""

    def really(said: Statement) -> bool:
        update = source.newest.get((said.subject, said.relation))
        return update is not None and _is_other(update.old, update.new)

    for turn, held in enumerate(source.draw(120, really)):
        new = replace(held, object=source.newest[held.subject, held.relation].old)
        asked = (new, _configured(new, turn), _asked(new, OTHERWISE, turn))[turn % 3]
        yield Pair("other value", False, held, asked)


def _is_other(old: str, new: str) -> bool:
    """Tell whether two values differ in more than accents and titles."""
    names = {letters(untitled(value) or value) for value in (old, new)}
    return len(names) == 2 and not any(a.endswith(b) for a in names for b in names if a != b)


def _nearly(source: _Source) -> Iterator[Pair]:
    """Give a slot nearly the same name: the factbook's own changes, and made ones."""
    for (subject, relation), update in source.newest.items():
        likeness = SequenceMatcher(None, update.old, update.new).ratio()
        if likeness > NEARLY and _is_other(update.old, update.new):
            held = source.statement((subject, relation))
            yield Pair("near name", False, held, replace(held, object=update.old))
    for turn, held in enumerate(source.offices(40)):
        change = with_middle_name if turn % 2 else one_letter_apart
        new = replace(held, object=change(held.object, source.rng))
        asked = _asked(new, OTHERWISE, turn) if turn % 3 == 0 else new
        yield Pair("near name", False, held, asked)
    for held in source.draw(20, lambda said: bool(re.search(r" I+$", said.object))):
        other = f"{held.object}I" if held.object.endswith(" I") else held.object[:-1]
        yield Pair("number", False, held, replace(held, object=other))


def _turned(source: _Source) -> Iterator[Pair]:
    """Negate the same words with the same object, or move them to another time."""
    for turn, held in enumerate(source.offices(40)):
        yield Pair("negation", False, held, _asked(held, NEGATED, turn))
    for held in source.draw(20, lambda said: said.relation == "government_type"):
        yield Pair("negation", False, held, replace(held, object=f"not a {held.object}"))
    for turn, held in enumerate(source.offices(60)):
        yield Pair("other time", False, held, _asked(held, OTHER_TIME, turn))
