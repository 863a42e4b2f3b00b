"""How well triage tells repetitions from other facts, on the labelled pairs.

A store holds the first statement of every pair and the rest of the factbook; each second
statement comes in as if alone. Real MiniLM vectors, real triage, no language model: asked, it
says nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.ingest_pairs import Pair, Statement, distractors, labelled
from daemon.config import Config
from daemon.messages import Answers, Ask
from daemon.neighbours import EmbedTexts
from daemon.polling import extractor
from daemon.state import State, init
from daemon.store import Store, facts, vectors
from daemon.triage import Finding, Triage
from ingest import sentence

NOW = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair and what triage made of its second statement."""

    pair: Pair
    found: Finding
    into: Statement | None  #: what it was merged into

    @property
    def merged(self) -> bool:
        """Whether the second statement was taken for a repetition."""
        return self.into is not None

    @property
    def merged_right(self) -> bool:
        """Whether it was taken for one of what it repeats; the same may be held in two wordings."""
        new, into = self.pair.new, self.into
        slot = (self.pair.held.subject, new.relation)
        return self.pair.same and into is not None and (into.subject, into.relation) == slot


def _answers_nothing(request: Ask) -> Answers:
    raise AssertionError("examining asks no model")


def judged(folder: Path) -> list[Judged]:
    """Return what triage makes of every pair, in a fresh state folder."""
    state = init(folder, NOW)
    config, pairs = state.config(), labelled()
    with state.store() as store:
        held = dict.fromkeys([*(p.held for p in pairs), *distractors(pairs)])
        of_id = dict(zip(_stored(store, config, held), held, strict=True))
        with store.write():
            for number in of_id:
                store.transition("fact", number, "approve", NOW)
        new = _stored(store, config, [p.new for p in pairs])
        triage = Triage(store, config, _embedding(config), _answers_nothing)
        found = triage.examine([facts.get(store, number) for number in new])
    return [
        Judged(pair, one, of_id[one.same_as] if one.same_as else None)
        for pair, one in zip(pairs, found, strict=True)
    ]


def _embedding(config: Config) -> EmbedTexts:
    """Return the worker's own embedding, in this process."""
    from daemon.worker.serving import embed
    from daemon.worker.session import Session

    session = Session(config, lambda stage, done, total: None)
    return lambda request: embed(session, request)


def embedded(folder: Path) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Return the texts of the facts of a state folder, and (n, width) vectors, rows of length 1."""
    state = State(folder)
    model = state.config().embedding.name
    with state.store(read_only=True) as store:
        pages = list(vectors.compared(store, model, 1, sys.maxsize))
        rows = [row for page in pages for row in page]
        held = [facts.get(store, row.fact_id) for row in rows]
    data = np.frombuffer(b"".join(row.data for row in rows), "<f4")
    return [sentence(f.subject, f.prompts[0], f.object) for f in held], data.reshape(len(rows), -1)


def _stored(store: Store, config: Config, statements: Iterable[Statement]) -> list[int]:
    """Store statements as received facts, as a correction log brings them; return their ids."""
    extract = extractor(config)
    with store.write():
        return [
            facts.insert(store, extract.from_row(said.row), None, "trusted", NOW, NOW)
            for said in statements
        ]


@dataclass(frozen=True, slots=True)
class Score:
    """What came of the pairs."""

    pairs: int
    precision: float  #: of what was merged, the share that says the same
    recall: float  #: of what says the same, the share that was merged
    merged_conflicts: int  #: pairs that say different things and were merged


def score(all_judged: Sequence[Judged]) -> Score:
    """Return precision and recall of merging."""
    merged = sum(one.merged for one in all_judged)
    right = sum(one.merged_right for one in all_judged)
    return Score(
        len(all_judged),
        right / max(1, merged),
        right / sum(one.pair.same for one in all_judged),
        sum(one.merged and not one.pair.same for one in all_judged),
    )


def by_kind(all_judged: Sequence[Judged]) -> list[str]:
    """Return a line for each kind of pair: how many came out as they should."""
    total = Counter((one.pair.same, one.pair.kind) for one in all_judged)
    good = Counter(
        (one.pair.same, one.pair.kind)
        for one in all_judged
        if (one.merged_right if one.pair.same else not one.merged)
    )
    return [
        f"{'same' if same else 'different':9s} {kind:28s} {good[same, kind]:4d} of {count}"
        for (same, kind), count in sorted(total.items(), key=lambda item: (not item[0][0], item[0]))
    ]
