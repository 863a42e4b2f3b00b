"""Which names mean one subject: Burma is Myanmar, the UK is the United Kingdom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ingest import text
from ingest.text import name_key


class Names:
    """A table of subjects with other names, to be compared in one name. It never changes.

    Case, accents, punctuation, articles and look-alike letters need no entry: `name_key` folds
    them. A name without an entry means itself.
    """

    def __init__(self, table: Mapping[str, Iterable[str]] | None = None) -> None:
        """Take the other names of each subject; raise ValueError that names every problem."""
        self._entries = {name: (name, *others) for name, others in (table or {}).items()}
        if problems := list(_problems(self._entries)):
            raise ValueError("; ".join(problems))
        self._entry_of = {
            name_key(name): entry for entry, names in self._entries.items() for name in names
        }

    def canonical(self, name: str) -> str:
        """Return the name that the table has its entry under; one without an entry as it is."""
        return self._entry_of.get(name_key(name), name)

    def key(self, name: str) -> str:
        """Return the comparison key of a name: the same for all names of a subject."""
        return name_key(self.canonical(name))

    def others(self, name: str) -> tuple[str, ...]:
        """Return the other names of a subject, none that only differs in what folds."""
        names = self._entries.get(self.canonical(name), ())
        by_key = {name_key(one): one for one in reversed(names)}
        by_key.pop(name_key(name), None)
        return tuple(one for one in names if by_key.get(name_key(one)) == one)

    def said(self, subject: str, object: str) -> str:
        """Return the object of a fact in its canonical name, to be compared with others.

        As it is where it names the subject itself: that Burma is now called Myanmar is news.
        """
        known = self.canonical(object)
        return object if known == object or known == self.canonical(subject) else known

    def slot_key(self, subject: str, relation: str) -> str:
        """Return the sha256 hex that names a slot, whichever name its subject is given."""
        return text.slot_key(self.canonical(subject), relation)

    def fact_key(self, subject: str, relation: str, object: str) -> str:
        """Return the sha256 hex that names a fact, whichever names its parts are given."""
        return text.fact_key(self.canonical(subject), relation, self.said(subject, object))


def _problems(entries: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    """Yield what makes a table ambiguous, each problem with both names."""
    entry_of: dict[str, str] = {}
    for entry in entries:
        if other := entry_of.get(name_key(entry)):
            yield f"{other!r} and {entry!r} are one name: make one entry of them"
        entry_of.setdefault(name_key(entry), entry)
    owner: dict[str, str] = {}
    for entry, names in entries.items():
        for name in names:
            key = name_key(name)
            if not key:
                yield f"{name!r} in the entry of {entry!r} is no name: nothing is left to compare"
            elif key in entry_of and entry_of[key] != entry and name != entry:
                yield (
                    f"{name!r} is listed under {entry!r} and has an entry of its own,"
                    f" {entry_of[key]!r}: make one entry of them"
                )
            elif key not in entry_of and owner.setdefault(key, entry) != entry:
                yield f"{name!r} is listed under both {owner[key]!r} and {entry!r}"
