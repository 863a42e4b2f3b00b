"""What becomes of received facts: duplicate, known, conflicting, quarantined, pending, approved.

The worker embeds and asks; the judges of `ingest` and `policies` decide; one transaction a fact
writes it down.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon import quotas
from daemon.config import Config
from daemon.deaths import WorkerError
from daemon.errors import Conflict, WisedError
from daemon.faults import fault
from daemon.messages import Answers, Ask
from daemon.neighbours import EmbedTexts, Neighbours
from daemon.store import Store, facts, keys
from daemon.store.facts import CLAIMS_SLOT, HELD, Fact
from ingest import Claim, Verdict, Wordings, is_read, judge, name_key
from policies.approval import Decision, decide, passes_for
from policies.conflict import BELIEVED, Outcome, Standing, resolve
from policies.trust import Tier

#: asks the worker to answer prompts
AskPrompts = Callable[[Ask], Answers]
#: states of facts that nobody has decided on
WAITING = ("pending", "conflicting", "quarantined")
#: facts looked at in one go: new ones; and those of a group in which the worker died, once, twice
#: and three times
SIZES = (500, 62, 8, 1)
ALONE = len(SIZES) - 1
#: what comes before a decision on a fact that triage has not looked at, or not lately
BEFORE_DECIDING = {"received": "wised run --once first", "dropped": "wised fact requeue first"}


@dataclass(frozen=True, slots=True)
class Triaged:
    """What one go came to."""

    facts: int  #: decided on
    quarantined: int = 0  #: of these, because the worker dies of them
    error: WorkerError | None = None  #: the worker died; what it died of is tried in smaller groups
    traces: tuple[str, ...] = ()  #: of bugs, each of which cost a fact


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

    def run(self, release: str | None, now: datetime) -> Triaged:
        """Decide on the oldest received facts.

        ``release`` is the folder of the one that answers now, None for the bare model. When the
        worker dies of a group of facts, they are tried again in smaller ones, after all others;
        one that it dies of alone, ``max_attempts`` times, is quarantined. Raises WorkerError when
        the worker can't work at all, or has to stop.
        """
        waiting = facts.to_triage(self._store, SIZES)
        if not waiting:
            return Triaged(0)
        is_embedded = False
        try:
            self._near.meet(waiting)
            is_embedded = True
            fault("triage.embedded")
            prompts = tuple(fact.prompts[0] for fact in waiting)
            asked = Ask(release=release, prompts=prompts, beside_bare=False)
            answers = self._ask(asked).answers
        except WorkerError as error:
            if error.is_stop or not error.is_at_work:
                raise
            return self._take_apart(waiting, error, is_embedded, now)
        fault("triage.asked")
        traces = []
        for fact, answer in zip(waiting, answers, strict=True):
            with self._store.write():
                found, trace = self._found(fact, answer.text)
                _apply(self._store, fact, found, now)
            fault("triage.decided")
            if found.event != "duplicate":
                self._near.keep(fact)
            traces += [trace] if trace else []
        return Triaged(len(waiting), traces=tuple(traces))

    def _take_apart(
        self, group: Sequence[Fact], error: WorkerError, is_embedded: bool, now: datetime
    ) -> Triaged:
        """Record that the worker died of a group, in which one fact may be why."""
        if len(group) > 1:
            tries = next(i for i, size in enumerate(SIZES) if size < len(group))
            with self._store.write():
                facts.count_tries(self._store, group, tries)
                data = {"facts": [fact.id for fact in group], "error": str(error)}
                self._store.event("triage.fail", "triage", data, now)
            fault("triage.blamed")
            return Triaged(0, 0, error)
        (fact,) = group
        tries = max(fact.attempts, ALONE) + 1
        given_up = tries - ALONE >= self._config.daemon.max_attempts
        if given_up and not is_embedded:
            self._near.give_up(fact)
        with self._store.write():
            facts.count_tries(self._store, group, tries)
            if given_up:
                why = f"alone: {error}"
                self._store.transition("fact", fact.id, "quarantine", now, why, attempts=0)
        fault("triage.given_up")
        return Triaged(int(given_up), int(given_up), error)

    def examine(self, new: Sequence[Fact]) -> list[Finding]:
        """Return what would become of each fact if it came alone; decides nothing."""
        self._near.meet(new)
        return [self._examine(fact, "") for fact in new]

    def _found(self, fact: Fact, answer: str) -> tuple[Finding, str]:
        """Return what becomes of one fact, and the traceback of a bug that it brings to light.

        That costs this fact alone: left received, it would come first again after a restart.
        """
        try:
            return self._examine(fact, answer), ""
        except (WisedError, sqlite3.Error):
            raise
        except Exception as error:
            why = f"{type(error).__name__}, which is a bug: the log has its traceback"
            return Finding("quarantine", why), "".join(traceback.format_exception(error))

    def _examine(self, fact: Fact, answer: str) -> Finding:
        """Return what becomes of one fact, in the order: duplicate, known, conflict, policy."""
        store, config = self._store, self._config
        slot = _decided(facts.by_slot(store, fact.slot_key), fact)
        overtaken = [f for f in slot if any(_overtakes(other, f) for other in slot)]
        alike = _decided(facts.by_key(store, fact.fact_key), fact)
        # What a pattern or a payload states is more than one more voice for a guess.
        guesses = [f for f in (*alike, *slot) if _is_guess(config, f) and f.state in WAITING]
        guesses = [] if _is_guess(config, fact) else guesses
        if earlier := [
            f for f in alike if f.state in HELD and f not in overtaken and f not in guesses
        ]:
            return Finding("duplicate", f"says the same as fact {earlier[-1].id}", earlier[-1].id)
        rivals = [f for f in slot if f.state in CLAIMS_SLOT and f not in overtaken]
        near = [f for f in self._near.of(fact) if f not in overtaken]
        for held in [*rivals, *near]:
            if held not in guesses and self._judge(fact, held) is Verdict.SAME:
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
        known = keys.names(self._store)
        return judge(_claim(new), _claim(held), self._wordings, known)


def _decided(found: Sequence[Fact], fact: Fact) -> list[Fact]:
    """Return those that came before ``fact``, or were decided on while its group was put off."""
    return [f for f in found if f.id < fact.id or (f.id > fact.id and f.state != "received")]


def _claim(fact: Fact) -> Claim:
    return Claim(fact.subject, fact.relation, fact.object, fact.prompts[0])


def _beside(config: Config, fact: Fact, rivals: Sequence[Fact]) -> Finding:
    """Return what becomes of a new answer, given those that its slot has."""
    supersedes = []
    for held in rivals:
        if why := _passes_for(fact, held):
            return Finding("quarantine", f"{why} (fact {held.id})")
        outcome = resolve(_standing(config, fact), _standing(config, held))
        if outcome.outcome is Outcome.STALE:
            return Finding("supersede", f"fact {held.id} is newer: {outcome.reason}")
        if outcome.outcome is Outcome.CONFLICTING:
            return Finding("conflict", f"fact {held.id} says {held.object!r}: {outcome.reason}")
        supersedes.append(held.id)
    return _by_policy(config, fact, tuple(supersedes))


def _passes_for(fact: Fact, held: Fact) -> str | None:
    """Return why a fact is suspect whose subject is a rival's in other letters.

    Another name of the subject is none: that the operator has listed it is word enough.
    """
    is_alike = name_key(fact.subject) == name_key(held.subject)
    if not is_alike:
        return None
    return passes_for(fact.subject, held.subject, is_believed=held.state in BELIEVED)


def _overtakes(later: Fact, earlier: Fact) -> bool:
    """Tell whether a believed fact of the same slot will take the place of an earlier one.

    Until it does the earlier one still answers; but saying that again is then news, a value that
    has come back, and not the same claim.
    """
    is_later = (later.asserted_at, later.id) > (earlier.asserted_at, earlier.id)
    return later.state in BELIEVED and later.fact_key != earlier.fact_key and is_later


def _standing(config: Config, fact: Fact) -> Standing:
    """Return what counts of a fact; a guess that nobody accepted counts as untrusted."""
    is_open = _is_guess(config, fact) and fact.state not in BELIEVED
    return Standing(Tier.UNTRUSTED if is_open else Tier(fact.tier), fact.asserted_at, fact.state)


def _is_guess(config: Config, fact: Fact) -> bool:
    """Tell whether a language model read a fact out of a text, and no rule accepts that."""
    is_allowed = config.extraction.auto_approve and fact.tier == Tier.TRUSTED
    return is_read(fact.extractor) and not is_allowed


def _by_policy(config: Config, fact: Fact, supersedes: tuple[int, ...]) -> Finding:
    decision: Decision = decide(
        Tier(fact.tier),
        auto_approve=frozenset(Tier(t) for t in config.policies.auto_approve),
        subject=fact.subject,
        object=fact.object,
        is_guess=_is_guess(config, fact),
    )
    event = {"approved": "approve", "pending": "hold", "quarantined": "quarantine"}[decision.state]
    # Only an approved fact makes others give way; a waiting one does when it is approved.
    return Finding(event, decision.reason, supersedes=supersedes if event == "approve" else ())


def _apply(store: Store, fact: Fact, found: Finding, now: datetime) -> None:
    also = {"same_as": found.same_as, "attempts": 0}
    store.transition("fact", fact.id, found.event, now, found.reason, **also)
    if found.same_as is not None:
        facts.share_evidence(store, fact.id, found.same_as)
        quotas.vouch(store, found.same_as, fact)
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


def must_be_looked_at(fact: Fact) -> None:
    """Raise Conflict for a fact that triage is to look at before a person decides."""
    if fact.state in BEFORE_DECIDING:
        what = "was dropped" if fact.state == "dropped" else "was not looked at yet"
        raise Conflict(f"fact {fact.id} {what}", hint=BEFORE_DECIDING[fact.state])


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
        must_be_looked_at(fact)
        event = "requeue" if fact.state == "verified" else "approve"
        state = store.transition("fact", fact_id, event, now, reason, attempts=0)
        for held in facts.by_slot(store, fact.slot_key):
            if held.id != fact_id and held.state in CLAIMS_SLOT:
                supersede(store, held, fact, now)
        return state
