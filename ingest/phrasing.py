"""Prompts and the templates they come from: which relation does a prompt ask for, and of what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.text import fold, tidy
from ingest.types import Relation

FIELD = "{subject}"

_LEAD = re.compile(r"^Q(?:uestion)?\s*:\s*", re.IGNORECASE)
_TAIL = re.compile(r"\s*\b(?:A|Answer)\s*:\s*$", re.IGNORECASE)
_END = " ?:.,"


def core(prompt: str) -> str:
    """Return a prompt without its wrappers: a leading ``Q:``, a trailing ``A:``, end marks."""
    return _TAIL.sub("", _LEAD.sub("", tidy(prompt))).rstrip(_END)


def fill(template: str, subject: str) -> str:
    """Put the subject in; braces in it mean nothing."""
    return template.replace(FIELD, subject)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a prompt asks for."""

    relation: str
    subject: str


def _expression(template: str) -> re.Pattern[str]:
    before, _, after = core(template).partition(FIELD)
    return re.compile(f"{re.escape(before)}(?P<subject>.+){re.escape(after)}", re.IGNORECASE)


class Phrasings:
    """The templates of all relations, ready to recognise prompts."""

    def __init__(self, relations: Mapping[str, Relation]) -> None:
        """Compile every template; raise ValueError for one without exactly one subject."""
        self._known: list[tuple[str, re.Pattern[str]]] = []
        for name, relation in relations.items():
            for template in (*relation.prompts, *relation.held_out):
                if template.count(FIELD) != 1:
                    raise ValueError(f"relation {name}: {template!r} needs exactly one {FIELD}")
                self._known.append((name, _expression(template)))

    def recognise(self, prompt: str, subject: str | None = None) -> tuple[Asked, ...]:
        """Return what the prompt may ask for: none, one, or several that tie.

        The shortest subject wins, for then the most of the prompt is the template's. A given
        `subject` goes before: it rules out readings of any other and lends its spelling, unless
        no reading has it.
        """
        asked = core(prompt)
        found = {
            Asked(name, match["subject"].strip())
            for name, expression in self._known
            if (match := expression.fullmatch(asked))
        }
        if subject is not None:
            key = fold(subject)
            of_it = {Asked(one.relation, subject) for one in found if fold(one.subject) == key}
            found = of_it or found
        shortest = min((len(one.subject) for one in found), default=0)
        best = [one for one in found if len(one.subject) == shortest]
        return tuple(sorted(best, key=lambda one: one.relation))
