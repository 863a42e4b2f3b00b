"""Entries and log rows to candidate facts, by the configured relations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ingest.errors import RowError
from ingest.patterns import compiled, lines
from ingest.phrasing import Asked, Phrasings, core, fill
from ingest.text import clean, fact_key, fold, tidy
from ingest.types import ASKED, Candidate, Entry, Relation, Stated

#: what an honest fact stays under
MAX_SUBJECT_CHARS = 200
MAX_OBJECT_CHARS = 300
MAX_PROMPT_CHARS = 1000

_PATTERN, _ROW, _PROMPT = "pattern/1", "row/1", "prompt/1"


def _checked(name: str, value: object, limit: int, *, prompt: bool = False) -> str:
    if not isinstance(value, str):
        raise RowError("row.not_text", f"{name} is {type(value).__name__}, not text")
    text = tidy(value) if prompt else clean(value)
    if not clean(text):
        raise RowError("row.empty", f"{name} is empty")
    if len(text) > limit:
        raise RowError("row.too_long", f"{name} has {len(text)} characters, over {limit}")
    return text


def _required(row: Mapping[str, Any], name: str) -> object:
    if name not in row:
        raise RowError("row.missing", f"{name} is missing")
    return row[name]


def _old(value: object, limit: int = MAX_OBJECT_CHARS) -> str | None:
    return None if value in (None, "") else _checked("the old value", value, limit)


class Extractor:
    """Find facts of the configured relations. It holds no state between calls."""

    def __init__(self, relations: Mapping[str, Relation]) -> None:
        """Compile patterns and templates once; raise ValueError naming a bad one."""
        if ASKED in relations:
            raise ValueError(f"no relation may be named {ASKED!r}: bare prompts have that name")
        self._relations = dict(relations)
        self._by_fold = {fold(name): name for name in relations}
        self._patterns = {name: compiled(relation) for name, relation in relations.items()}
        self._phrasings = Phrasings(relations)

    @property
    def relations(self) -> Mapping[str, Relation]:
        """Return the configured relations by name."""
        return MappingProxyType(self._relations)

    def from_entry(self, entry: Entry) -> tuple[Candidate, ...]:
        """Return the facts that an entry's title and lines state, each once.

        A match whose subject or object is empty or overlong states nothing.
        """
        found: dict[str, Candidate] = {}
        for line in lines(entry.title, entry.text):
            for candidate in self._stated(line):
                key = fact_key(candidate.subject, candidate.relation, candidate.object)
                found.setdefault(key, candidate)
        return tuple(found.values())

    def from_stated(self, stated: Stated, quote: str) -> Candidate:
        """Return the fact that an entry carries in structured form; raise RowError."""
        return self._configured(
            stated.subject,
            self._named(stated.relation),
            stated.object,
            stated.old,
            quote=quote,
            extractor=stated.extractor,
        )

    def from_row(self, row: Mapping[str, Any]) -> Candidate:
        """Return the fact of one correction-log row.

        A row is ``subject, relation, object[, old]`` or ``prompt, right[, wrong, rephrases,
        subject]``; other keys say nothing here. Raises RowError.
        """
        is_fact = "relation" in row or "object" in row
        is_prompt = "prompt" in row or "right" in row
        if is_fact == is_prompt:
            raise RowError(
                "row.ambiguous" if is_fact else "row.unknown_shape",
                "a row is either subject, relation, object or prompt, right",
            )
        return self._from_fact(row) if is_fact else self._from_prompt(row)

    def _stated(self, line: str) -> list[Candidate]:
        found = []
        for name, patterns in self._patterns.items():
            for pattern in patterns:
                if match := pattern.search(line):
                    groups = match.groupdict()
                    try:
                        found.append(
                            self._configured(
                                groups["subject"],
                                name,
                                groups["object"],
                                groups.get("old"),
                                quote=line,
                                extractor=_PATTERN,
                            )
                        )
                    except RowError:
                        continue
        return found

    def _configured(
        self,
        subject: object,
        relation: str,
        object: object,
        old: object,
        *,
        quote: str,
        extractor: str,
    ) -> Candidate:
        name = _checked("the subject", subject, MAX_SUBJECT_CHARS)
        known = self._relations[relation]
        return Candidate(
            subject=name,
            relation=relation,
            object=_checked("the object", object, MAX_OBJECT_CHARS),
            old=_old(old),
            prompts=tuple(fill(template, name) for template in known.prompts),
            held_out=tuple(fill(template, name) for template in known.held_out),
            quote=quote,
            extractor=extractor,
        )

    def _named(self, relation: object) -> str:
        """Return the name of a configured relation, however it is spelled."""
        given = _checked("relation", relation, MAX_PROMPT_CHARS)
        found = self._by_fold.get(fold(given))
        if found is None:
            known = ", ".join(sorted(self._relations))
            raise RowError("row.unknown_relation", f"relation {given[:80]!r} is not one of {known}")
        return found

    def _from_fact(self, row: Mapping[str, Any]) -> Candidate:
        relation = self._named(_required(row, "relation"))
        subject, value = _required(row, "subject"), _required(row, "object")
        quote = f"{clean(str(subject))}: {relation} is now {clean(str(value))}"
        return self._configured(
            subject, relation, value, row.get("old"), quote=quote, extractor=_ROW
        )

    def _from_prompt(self, row: Mapping[str, Any]) -> Candidate:
        prompt = _checked("prompt", _required(row, "prompt"), MAX_PROMPT_CHARS, prompt=True)
        right = _checked("right", _required(row, "right"), MAX_OBJECT_CHARS)
        subject = row.get("subject")
        if subject is not None:
            subject = _checked("the subject", subject, MAX_SUBJECT_CHARS)
        rephrases = _rephrases(row.get("rephrases"))
        quote = f"{prompt} {right}"
        asked = self._asked(prompt, subject)
        if asked is None:
            return _bare(prompt, right, _old(row.get("wrong")), rephrases, quote)
        return self._configured(
            asked.subject, asked.relation, right, row.get("wrong"), quote=quote, extractor=_PROMPT
        )

    def _asked(self, prompt: str, subject: str | None) -> Asked | None:
        readings = self._phrasings.recognise(prompt, subject)
        if len(readings) > 1:
            names = ", ".join(reading.relation for reading in readings)
            raise RowError(
                "row.ambiguous_prompt",
                f"the prompt may ask for {names}: give subject, relation and object instead",
            )
        return readings[0] if readings else None


def _rephrases(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError("row.not_text", f"rephrases is {type(value).__name__}, not a list of texts")
    return tuple(_checked("a rephrase", one, MAX_PROMPT_CHARS, prompt=True) for one in value)


def _bare(
    prompt: str, right: str, wrong: str | None, rephrases: tuple[str, ...], quote: str
) -> Candidate:
    """Return the fact of a prompt that fits no relation.

    The last of two or more rephrases is kept from training, to probe with; a single one is
    needed more for training.
    """
    keep = len(rephrases) - 1 if len(rephrases) > 1 else len(rephrases)
    return Candidate(
        subject=core(prompt) or prompt,
        relation=ASKED,
        object=right,
        old=wrong,
        prompts=(prompt, *rephrases[:keep]),
        held_out=rephrases[keep:],
        quote=quote,
        extractor=_PROMPT,
    )
