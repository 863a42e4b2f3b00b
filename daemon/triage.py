"""What becomes of received facts: duplicate, known, conflicting, quarantined, pending, approved.

The worker embeds and asks; the judges of `ingest` and `policies` decide; one transaction a fact
writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.config import Config
from daemon.errors import Conflict
from daemon.messages import Answers, Ask
from daemon.neighbours import EmbedTexts, Neighbours
from daemon.store import Store, facts
from daemon.store.facts import CLAIMS_SLOT, HELD, Fact
from ingest import Claim, Verdict, Wordings, judge
from policies import BELIEVED, Decision, Outcome, Standing, Tier, decide, resolve

#: asks the worker to answer prompts
AskPrompts = Callable[[Ask], Answers]
CHUNK = 500  #: facts looked at in one go


@dataclass(frozen=True, slots=True)
class Finding:
    """What triage decided on one fact."""

    event: str  #: of the fact's life cycle
    reason: str
    same_as: int | None = None  #: duplicates: the fact that was there first
    supersedes: tuple[int, ...] = ()  #: facts that give way


class Triage:
    """Decides on received facts; it lasts as long as the daemon, for what it remembers of facts."""

    def __init__(self, store: Store, config: Config, embed: EmbedTexts, ask: AskPrompts) -> None:
        self._store, self._config, self._ask = store, config, ask
        self._near = Neighbours(store, config, embed)
        self._wordings = Wordings(
            {name: (*r.prompts, *r.held_out) for name, r in config.relations.items()}
        )

    def run(self, release: str | None, now: datetime) -> int:
        """Decide on the oldest received facts; return how many there were.

        ``release`` is the folder of the one that answers now, None for the bare model.
        """
        waiting = facts.in_states(self._store, ("received",), limit=CHUNK)
        if not waiting:
            return 0
        self._near.meet(waiting)
        prompts = tuple(fact.prompts[0] for fact in waiting)
        answers = self._ask(Ask(release=release, prompts=prompts)).answers
        for fact, answer in zip(waiting, answers, strict=True):
            with self._store.write():
                found = self._examine(fact, answer.text)
                _apply(self._store, fact, found, now)
            if found.event != "duplicate":
                self._near.keep(fact)
        return len(waiting)

    def examine(self, new: Sequence[Fact]) -> list[Finding]:
        """Return what would become of each fact if it came alone; decides nothing."""
        self._near.meet(new)
        return [self._examine(fact, "") for fact in new]

    def _examine(self, fact: Fact, answer: str) -> Finding:
        """Return what becomes of one fact, in the order: duplicate, known, conflict, policy."""
        store = self._store
        slot = [f for f in facts.by_slot(store, fact.slot_key) if f.id < fact.id]
        overtaken = [f for f in slot if any(_overtakes(other, f) for other in slot)]
        alike = [f for f in facts.by_key(store, fact.fact_key) if f.id < fact.id]
        if earlier := [f for f in alike if f.state in HELD and f not in overtaken]:
            return Finding("duplicate", f"says the same as fact {earlier[-1].id}", earlier[-1].id)
        rivals = [f for f in slot if f.state in CLAIMS_SLOT and f not in overtaken]
        near = [f for f in self._near.of(fact) if f not in overtaken]
        for held in [*rivals, *near]:
            if self._judge(fact, held) is Verdict.SAME:
                reason = f"says the same as fact {held.id} in other words"
                return Finding("duplicate", reason, held.id)
        for held in near:
            if held.state not in CLAIMS_SLOT or held in rivals:
                continue
            if self._judge(fact, held) is Verdict.CONFLICT:
                # No slot in common: nothing would withdraw the other answer.
                reason = f"fact {held.id} answers the same prompt: {held.object!r}"
                return Finding("conflict", reason)
        if not rivals and answer == fact.object:
            return Finding("known", "the model answers so already")
        return _beside(self._config, fact, rivals)

    def _judge(self, new: Fact, held: Fact) -> Verdict:
        return judge(_claim(new), _claim(held), self._wordings)


def _claim(fact: Fact) -> Claim:
    return Claim(fact.subject, fact.relation, fact.object, fact.prompts[0])


def _beside(config: Config, fact: Fact, rivals: Sequence[Fact]) -> Finding:
    """Return what becomes of a new answer, given those that its slot has."""
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


def approve(store: Store, fact_id: int, reason: str, now: datetime, rev: int | None = None) -> str:
    """Approve a fact by hand; older facts of its slot that wait give way to it.

    ``rev`` is the revision that was judged; raises Conflict when the fact is of another.
    """
    with store.write():
        fact = facts.get(store, fact_id)
        if rev is not None and fact.rev != rev:
            raise Conflict(f"fact {fact_id} was changed by another process")
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
