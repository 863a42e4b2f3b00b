"""What a person needs to see of one waiting fact to decide on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daemon.cli.fact_view import evidence_lines
from daemon.store import Store, facts
from daemon.store.facts import Evidence, Fact
from policies.conflict import BELIEVED

MOST = 5  #: pieces of evidence, duplicates and rivals that are shown; `e` shows all


@dataclass(frozen=True, slots=True)
class View:
    """A waiting fact and what speaks for it and against it."""

    fact: Fact
    answered: Fact | None  #: what the slot is answered now; None: as the bare model does
    evidence: tuple[Evidence, ...]
    duplicates: tuple[Fact, ...]  #: facts that say the same
    rivals: tuple[Fact, ...]  #: other answers of its slot that are believed or wait too


def view(store: Store, fact_id: int) -> View:
    """Collect what speaks for a fact and against it; raises NotFound."""
    fact = facts.get(store, fact_id)
    slot = [f for f in facts.by_slot(store, fact.slot_key) if f.id != fact_id]
    return View(
        fact,
        next((f for f in slot if f.state == "promoted"), None),
        tuple(facts.evidence(store, fact_id)),
        tuple(facts.duplicates(store, fact_id)),
        tuple(f for f in slot if f.state in (*BELIEVED, "pending", "conflicting", "quarantined")),
    )


def lines(seen: View) -> Iterator[tuple[str, object]]:
    """Yield the fact as named lines: what is asked, what would change, why it waits."""
    fact = seen.fact
    yield "fact", f"{fact.id}, {fact.state}"
    yield "question", fact.prompts[0] if fact.prompts else f"{fact.subject} | {fact.relation}"
    yield "old answer", seen.answered.object if seen.answered else "(the bare model's)"
    yield "new answer", fact.object
    yield "waits because", fact.reason
    yield "tier", fact.tier
    yield "asserted", fact.asserted_at
    for one in seen.evidence[:MOST]:
        yield from evidence_lines(one)
    yield from _rest("evidence", len(seen.evidence))
    for same in seen.duplicates[:MOST]:
        yield "duplicate", f"fact {same.id}: {same.subject} | {same.relation} | {same.object}"
    yield from _rest("duplicate", len(seen.duplicates))
    for rival in seen.rivals[:MOST]:
        said = f"fact {rival.id} {rival.state} ({rival.tier}): {rival.object}"
        yield "conflicts with", said
    yield from _rest("conflicts with", len(seen.rivals))


def _rest(name: str, count: int) -> Iterator[tuple[str, object]]:
    if count > MOST:
        yield name, f"... and {count - MOST} more"
