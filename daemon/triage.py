"""What becomes of received facts: duplicate, known, conflicting, quarantined, pending, approved.

The worker embeds and asks; the judges of `ingest` and `policies` decide; one transaction a fact
writes it down.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from daemon.config import Config
from daemon.errors import Conflict
from daemon.messages import Answers, Ask, Embed, Embedded
from daemon.store import Store, facts
from daemon.store.facts import CLAIMS_SLOT, HELD, Fact
from ingest import Claim, Verdict, judge, nearest, sentence
from policies import BELIEVED, Decision, Outcome, Standing, Tier, decide, resolve

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: asks the worker to embed texts or to answer prompts
EmbedTexts = Callable[[Embed], Embedded]
AskPrompts = Callable[[Ask], Answers]
CHUNK = 500  #: facts looked at in one go


@dataclass(frozen=True, slots=True)
class Finding:
    """What triage decided on one fact."""

    event: str  #: of the fact's life cycle
    reason: str
    same_as: int | None = None  #: duplicates: the fact that was there first
    supersedes: tuple[int, ...] = ()  #: facts that give way


def triage(
    store: Store,
    config: Config,
    embed: EmbedTexts,
    ask: AskPrompts,
    release: str | None,
    now: datetime,
) -> int:
    """Decide on every received fact, oldest first; return how many there were."""
    waiting = facts.in_states(store, ("received",), limit=CHUNK)
    if not waiting:
        return 0
    _embed_missing(store, config, embed)
    prompts = tuple(fact.prompts[0] for fact in waiting)
    answers = ask(Ask(release=release, prompts=prompts)).answers
    known = {f.id: a.text for f, a in zip(waiting, answers, strict=True)}
    index = _Index(store, config)
    for fact in waiting:
        with store.write():
            found = _decide(store, config, index, fact, known[fact.id])
            _apply(store, fact, found, now)
    return len(waiting)


class _Index:
    """Embeddings of all held facts, and the facts nearest to one of them."""

    def __init__(self, store: Store, config: Config) -> None:
        import numpy as np

        self._store, self._config = store, config
        rows = store.rows(
            "SELECT fact_id, vector FROM embedding WHERE model = ? ORDER BY fact_id",
            config.embedding.name,
        )
        self.ids = [row["fact_id"] for row in rows]
        self._place = {fact: place for place, fact in enumerate(self.ids)}
        vectors = [np.frombuffer(row["vector"], "<f4") for row in rows]
        self._vectors: npt.NDArray[np.float32] = np.stack(vectors)

    def near(self, fact: Fact) -> list[Fact]:
        """Return held facts that came before ``fact`` and read like it, nearest first."""
        query = self._vectors[self._place[fact.id]][None]
        section = self._config.embedding
        earlier = self._vectors[: self._place[fact.id]]
        found = nearest(earlier, query, 4 * section.candidates, section.floor_cosine)[0]
        near = [facts.get(self._store, self.ids[place]) for place, _ in found]
        return [f for f in near if f.state in HELD][: section.candidates]


def _embed_missing(store: Store, config: Config, embed: EmbedTexts) -> None:
    """Embed received facts that have no vector yet; a crash in between only repeats work."""
    model = config.embedding.name
    rows = store.rows(
        "SELECT id FROM fact WHERE state = 'received'"
        " AND id NOT IN (SELECT fact_id FROM embedding WHERE model = ?) ORDER BY id",
        model,
    )
    missing = [facts.get(store, row["id"]) for row in rows]
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        texts = tuple(sentence(f.subject, f.prompts[0], f.object) for f in part)
        vectors = _vectors(embed(Embed(texts=texts)))
        with store.write():
            for fact, vector in zip(part, vectors, strict=True):
                row = {"fact_id": fact.id, "model": model, "vector": vector.tobytes()}
                store.table("embedding").insert(row, replace=True)


def _vectors(reply: Embedded) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(base64.b64decode(reply.vectors), "<f4").reshape(-1, reply.width)


def _claim(fact: Fact) -> Claim:
    return Claim(fact.subject, fact.relation, fact.object, fact.prompts[0])


def _decide(store: Store, config: Config, index: _Index, fact: Fact, answer: str) -> Finding:
    """Return what becomes of one fact, in the order: duplicate, known, conflict, policy."""
    slot = [f for f in facts.by_slot(store, fact.slot_key) if f.id < fact.id]
    overtaken = [f for f in slot if any(_overtakes(other, f) for other in slot)]
    earlier = [f for f in facts.by_key(store, fact.fact_key) if f.id < fact.id and f.state in HELD]
    if same := [f for f in earlier if f not in overtaken]:
        return Finding("duplicate", f"says the same as fact {same[-1].id}", same[-1].id)
    rivals = [f for f in slot if f.state in CLAIMS_SLOT and f not in overtaken]
    near = [f for f in index.near(fact) if f not in overtaken]
    for held in [*rivals, *near]:
        if judge(_claim(fact), _claim(held)) is Verdict.SAME:
            return Finding("duplicate", f"says the same as fact {held.id} in other words", held.id)
    asked_otherwise = [
        f
        for f in near
        if f.state in CLAIMS_SLOT and f not in rivals
        if judge(_claim(fact), _claim(f)) is Verdict.CONFLICT
    ]
    if asked_otherwise:  # no slot in common: nothing would withdraw the other answer
        held = asked_otherwise[0]
        return Finding("conflict", f"fact {held.id} answers the same prompt: {held.object!r}")
    if not rivals and answer == fact.object:
        return Finding("known", "the model answers so already")
    supersedes = []
    for held in rivals:
        outcome = resolve(_standing(fact), _standing(held))
        if outcome.outcome is Outcome.STALE:
            return Finding("supersede", f"fact {held.id} is newer: {outcome.reason}")
        if outcome.outcome is Outcome.CONFLICTING:
            return Finding("conflict", f"fact {held.id} says {held.object!r}: {outcome.reason}")
        supersedes.append(held.id)
    return _by_policy(config, fact, tuple(supersedes))


def _overtakes(later: Fact, earlier: Fact) -> bool:
    """Tell whether a believed fact of the same slot will take the place of an earlier one.

    Until it does the earlier one still answers; but saying that again is then news, a value that
    has come back, and not the same claim.
    """
    is_later = (later.asserted_at, later.id) > (earlier.asserted_at, earlier.id)
    return later.state in BELIEVED and later.fact_key != earlier.fact_key and is_later


def _standing(fact: Fact) -> Standing:
    return Standing(Tier(fact.tier), fact.asserted_at, fact.state)


def _by_policy(config: Config, fact: Fact, supersedes: tuple[int, ...]) -> Finding:
    decision: Decision = decide(
        Tier(fact.tier),
        auto_approve=frozenset(Tier(t) for t in config.policies.auto_approve),
        subject=fact.subject,
        object=fact.object,
    )
    event = {"approved": "approve", "pending": "hold", "quarantined": "quarantine"}[decision.state]
    # Only an approved fact makes others give way; a waiting one does when it is approved.
    return Finding(event, decision.reason, supersedes=supersedes if event == "approve" else ())


def _apply(store: Store, fact: Fact, found: Finding, now: datetime) -> None:
    store.transition("fact", fact.id, found.event, now, found.reason, same_as=found.same_as)
    if found.same_as is not None:
        facts.share_evidence(store, fact.id, found.same_as)
    for other in found.supersedes:
        supersede(store, facts.get(store, other), fact, now)


def supersede(store: Store, held: Fact, by: Fact, now: datetime) -> None:
    """Let ``held`` give way to an approved fact, inside a transaction.

    A promoted fact keeps its state until the release that replaces it is promoted, so the store
    never claims that the model has forgotten what it still answers.
    """
    if held.state in ("promoted", "batched", "edited"):
        return
    store.transition("fact", held.id, "supersede", now, f"fact {by.id} is newer")


def approve(store: Store, fact_id: int, reason: str, now: datetime) -> str:
    """Approve a fact by hand; older facts of its slot that wait give way to it."""
    with store.write():
        fact = facts.get(store, fact_id)
        if fact.state == "approved":
            return "already_approved"
        if fact.state == "received":
            raise Conflict(f"fact {fact_id} was not looked at yet", hint="wised run --once first")
        event = "requeue" if fact.state == "verified" else "approve"
        state = store.transition("fact", fact_id, event, now, reason, attempts=0)
        for held in facts.by_slot(store, fact.slot_key):
            if held.id != fact_id and held.state in CLAIMS_SLOT:
                supersede(store, held, fact, now)
        return state
