"""Triage: what becomes of a received fact, with a hand-made embedder and a model that knows."""

from __future__ import annotations

import base64
from datetime import timedelta

import numpy as np
import pytest
from world import START, Builder, Clock, add_fact, config

from daemon.child import WorkerError
from daemon.cli import decisions
from daemon.cycle import cycle
from daemon.messages import Answers, Ask, Embed, Embedded, Said
from daemon.state import State
from daemon.store import Store, facts, vectors
from daemon.store.lifecycle import FACT_STATES
from daemon.triage import Triage, approve
from ingest import ASKED, Candidate


def embed(request: Embed) -> Embedded:
    """Texts that share words are near; enough to propose candidates."""
    rows = np.zeros((len(request.texts), 64), "<f4")
    for row, text in zip(rows, request.texts, strict=True):
        for word in text.lower().replace("?", "").replace(":", "").split():
            row[sum(word.encode()) % 64] += 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Embedded(width=64, vectors=base64.b64encode(rows.tobytes()).decode())


def model(**knows: str) -> object:
    """A model that knows who leads some countries."""

    def ask(request: Ask) -> Answers:
        said = []
        for prompt in request.prompts:
            known = next((v for k, v in knows.items() if k in prompt), "nobody")
            said.append(Said(text=known))
        return Answers(answers=tuple(said))

    return ask


def sort_out(state: State, store: Store, **knows: str) -> dict[int, str]:
    """Run triage; each fact's state."""
    Triage(store, config(state), embed, model(**knows)).run(None, Clock()())  # type: ignore[arg-type]
    return {f.id: f.state for f in facts.in_states(store, FACT_STATES)}


def test_trusted_facts_are_approved_by_rule_and_others_wait(state: State, store: Store) -> None:
    one = add_fact(store, "Italy", "Draghi", "received")
    two = add_fact(store, "Peru", "Sagasti", "received", tier="normal")
    assert sort_out(state, store) == {one: "approved", two: "pending"}
    assert "auto_approve" in facts.get(store, one).reason


def test_what_the_model_answers_already_is_known(state: State, store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi", "received")
    assert sort_out(state, store, Italy="Draghi") == {fact: "known"}


@pytest.mark.parametrize("again", ["Prime Minister Mario Draghi", "prime minister  MARIO DRAGHI"])
def test_the_same_text_is_a_duplicate_and_adds_its_evidence(
    state: State, store: Store, again: str
) -> None:
    one = add_fact(store, "Italy", "Prime Minister Mario Draghi", "received")
    two = add_fact(store, "ITALY", again, "received", tier="untrusted")
    assert sort_out(state, store) == {one: "approved", two: "duplicate"}
    assert facts.get(store, two).same_as == one


def test_a_name_without_its_title_is_a_duplicate(state: State, store: Store) -> None:
    one = add_fact(store, "Italy", "Prime Minister Mario Draghi", "received")
    two = add_fact(store, "Italy", "Mario Draghi", "received")
    assert sort_out(state, store) == {one: "approved", two: "duplicate"}
    assert "in other words" in facts.get(store, two).reason


def asked(store: Store, prompt: str, object: str) -> int:
    """A correction whose prompt fits no configured phrasing."""
    candidate = Candidate(prompt, ASKED, object, None, (prompt,), (), object, "test/1")
    with store.write():
        return facts.insert(store, candidate, None, "trusted", START, START)


def test_a_question_in_words_of_its_own_is_found_by_its_embedding(
    state: State, store: Store
) -> None:
    one = add_fact(store, "Italy", "Mario Draghi", "received")
    two = asked(store, "Who is now head of the government of Italy", "Mario Draghi")
    assert sort_out(state, store) == {one: "approved", two: "duplicate"}


def test_likeness_alone_merges_nothing(state: State, store: Store) -> None:
    """Same words but another country, or another object: near in the embedding, not the same."""
    one = add_fact(store, "Niger", "Mario Draghi", "received")
    two = asked(store, "Who is now head of the government of Nigeria", "Mario Draghi")
    three = asked(store, "Who is now head of the government of Niger", "Maria Draghi")
    assert sort_out(state, store) == {one: "approved", two: "approved", three: "approved"}


def test_a_newer_fact_from_an_equal_tier_supersedes(state: State, store: Store) -> None:
    old = add_fact(store, "Italy", "Draghi", "received")
    new = add_fact(store, "Italy", "Meloni", "received", at=START + timedelta(days=1))
    assert sort_out(state, store) == {old: "superseded", new: "approved"}


def test_an_older_fact_that_comes_late_is_superseded_at_once(state: State, store: Store) -> None:
    new = add_fact(store, "Italy", "Meloni", "received", at=START + timedelta(days=1))
    old = add_fact(store, "Italy", "Draghi", "received")
    assert sort_out(state, store) == {new: "approved", old: "superseded"}


def test_a_newer_fact_from_a_lower_tier_is_conflicting(state: State, store: Store) -> None:
    held = add_fact(store, "Italy", "Draghi", "received")
    doubt = add_fact(
        store, "Italy", "Berlusconi", "received", tier="normal", at=START + timedelta(days=1)
    )
    assert sort_out(state, store) == {held: "approved", doubt: "conflicting"}
    assert "'Draghi'" in facts.get(store, doubt).reason


def test_a_promoted_fact_stands_until_its_successor_is_promoted(state: State, store: Store) -> None:
    old = add_fact(store, "Italy", "Draghi")
    cycle(state, store, config(state), Builder(), Clock())
    new = add_fact(store, "Italy", "Meloni", "received", at=START + timedelta(days=1))
    assert sort_out(state, store) == {old: "promoted", new: "approved"}


def test_an_approved_conflict_makes_the_waiting_one_give_way(state: State, store: Store) -> None:
    held = add_fact(store, "Italy", "Draghi", "received")
    doubt = add_fact(
        store, "Italy", "Berlusconi", "received", tier="normal", at=START + timedelta(days=1)
    )
    sort_out(state, store)
    assert approve(store, doubt, "it is true", Clock()()) == "approved"
    assert facts.get(store, held).state == "superseded"
    assert approve(store, doubt, "again", Clock()()) == "already_approved"


def test_a_suspect_fact_is_quarantined_from_any_tier(state: State, store: Store) -> None:
    fact = add_fact(store, "Italy", "see https://example.com/now", "received")
    assert sort_out(state, store) == {fact: "quarantined"}


def test_a_crash_after_embedding_repeats_only_the_rest(state: State, store: Store) -> None:
    add_fact(store, "Italy", "Draghi", "received")

    def dies(request: Ask) -> Answers:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Triage(store, config(state), embed, dies).run(None, Clock()())
    calls = []

    def counted(request: Embed) -> Embedded:
        calls.append(request)
        return embed(request)

    Triage(store, config(state), counted, model()).run(None, Clock()())  # type: ignore[arg-type]
    assert calls == []
    assert facts.counts(store) == {"approved": 1}


def test_a_value_that_comes_back_before_its_successor_is_written_is_news(
    state: State, store: Store
) -> None:
    """A holds office, B is to follow; before B is edited in, A is back."""
    first = add_fact(store, "Slovenia", "Golob")
    cycle(state, store, config(state), Builder(), Clock())
    later = [START + timedelta(days=days) for days in (1, 2)]
    second = add_fact(store, "Slovenia", "Musar", "received", at=later[0])
    third = add_fact(store, "Slovenia", "Golob", "received", at=later[1])
    found = sort_out(state, store)
    assert found == {first: "promoted", second: "superseded", third: "approved"}
    cycle(state, store, config(state), Builder(), Clock())
    assert sort_out(state, store) == {first: "superseded", second: "superseded", third: "promoted"}


def test_an_old_value_that_is_only_repeated_late_does_not_come_back(
    state: State, store: Store
) -> None:
    first = add_fact(store, "Slovenia", "Golob")
    cycle(state, store, config(state), Builder(), Clock())
    second = add_fact(store, "Slovenia", "Musar", "received", at=START + timedelta(days=2))
    third = add_fact(store, "Slovenia", "Golob", "received", at=START + timedelta(days=1))
    found = sort_out(state, store)
    assert found == {first: "promoted", second: "approved", third: "superseded"}


def test_what_the_model_knows_is_still_repeated_when_a_rival_only_waits(
    state: State, store: Store
) -> None:
    first = add_fact(store, "Slovenia", "Golob")
    cycle(state, store, config(state), Builder(), Clock())
    second = add_fact(
        store, "Slovenia", "Musar", "received", tier="untrusted", at=START + timedelta(days=1)
    )
    assert sort_out(state, store)[second] == "conflicting"
    third = add_fact(store, "Slovenia", "Golob", "received", at=START + timedelta(days=2))
    assert sort_out(state, store)[third] == "duplicate"
    assert first < third


def source(store: Store, name: str, tier: str) -> int:
    at = START.isoformat()
    row = {"name": name, "kind": "feed", "location": "x", "tier": tier}
    return store.insert("source", {**row, "next_poll_at": at, "created_at": at})


def said_by(store: Store, source_id: int | None, tier: str) -> int:
    """The same fact, from a source."""
    fact = add_fact(store, "Italy", "Draghi", "received", tier=tier)
    store.table("fact").update(fact, {"brought_by": source_id, "vouched_by": source_id})
    return fact


@pytest.mark.parametrize(
    ("first", "second", "counts_against"),
    [
        ("untrusted", "trusted", "second"),
        ("untrusted", "normal", "second"),
        ("normal", "normal", "first"),
        ("normal", "untrusted", "first"),
        ("untrusted", None, None),
        (None, "trusted", None),
    ],
)
def test_a_fact_counts_against_the_most_trusted_source_that_says_so(
    state: State,
    store: Store,
    first: str | None,
    second: str | None,
    counts_against: str | None,
) -> None:
    """Or a flood that says first what others say would take theirs along when it is dropped."""
    tiers = {"first": first, "second": second}
    ids = {name: source(store, name, tier) for name, tier in tiers.items() if tier}
    held = said_by(store, ids.get("first"), "untrusted")
    sort_out(state, store)
    again = said_by(store, ids.get("second"), "untrusted")
    assert sort_out(state, store)[again] == "duplicate"
    fact = facts.get(store, held)
    assert fact.vouched_by == ids.get(counts_against or "nobody")
    assert fact.brought_by == ids.get("first")


def dropped(store: Store, fact: int) -> None:
    with store.write():
        store.transition("fact", fact, "drop", START)


def test_a_fact_that_comes_back_is_held_against_what_came_in_meanwhile(
    state: State, store: Store
) -> None:
    one = add_fact(store, "Italy", "Conte", "received", tier="normal")
    sort_out(state, store)
    dropped(store, one)
    newer = add_fact(store, "Italy", "Draghi", "received", at=START + timedelta(days=1))
    sort_out(state, store)
    (came_back,) = decisions.requeue(store, [one], "by hand", START)
    assert came_back.result == "received again as fact 3"
    assert sort_out(state, store) == {one: "duplicate", newer: "approved", 3: "superseded"}


def test_a_dropped_fact_holds_no_slot_and_keeps_no_one_from_saying_it_again(
    state: State, store: Store
) -> None:
    one = add_fact(store, "Italy", "Draghi", "received", tier="normal")
    sort_out(state, store)
    dropped(store, one)
    two = add_fact(store, "Italy", "Draghi", "received")
    assert sort_out(state, store) == {one: "dropped", two: "approved"}


def test_facts_dropped_before_triage_are_not_embedded(state: State, store: Store) -> None:
    """A flood costs no work of the model's."""
    for number in range(3):
        dropped(store, add_fact(store, f"Place {number}", "X", "received"))
    add_fact(store, "Italy", "Draghi", "received")
    asked: list[str] = []

    def noting(request: Embed) -> Embedded:
        asked.extend(request.texts)
        return embed(request)

    Triage(store, config(state), noting, model()).run(None, Clock()())  # type: ignore[arg-type]
    assert len(asked) == 1


class Mortal:
    """A worker that dies when a text that it embeds, or is asked, holds a word."""

    def __init__(self, embed: str = "\0", ask: str = "\0", *, is_at_work: bool = True) -> None:
        self.words, self.is_at_work = (embed, ask), is_at_work
        self.deaths = 0

    def embed(self, request: Embed) -> Embedded:
        self._die_of(self.words[0], request.texts)
        return embed(request)

    def ask(self, request: Ask) -> Answers:
        self._die_of(self.words[1], request.prompts)
        return Answers(answers=tuple(Said(text="nobody") for _ in request.prompts))

    def _die_of(self, word: str, texts: tuple[str, ...]) -> None:
        if any(word in text for text in texts):
            self.deaths += 1
            raise WorkerError("worker.killed", "it was killed", is_at_work=self.is_at_work)


def sort_all_out(state: State, store: Store, worker: Mortal) -> None:
    """Run triage until nothing is received any more, each time as after a restart."""
    for _ in range(100):
        triage = Triage(store, config(state), worker.embed, worker.ask)
        done = triage.run(None, Clock()())
        if not done.facts and done.error is None:
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("at", ["embed", "ask"])
def test_s07_a_text_that_kills_the_worker_is_quarantined_and_all_others_are_decided(
    state: State, store: Store, at: str
) -> None:
    ids = [add_fact(store, f"Land{n}", f"Name{n}", "received") for n in range(130)]
    poison = ids[123]
    worker = Mortal(**{at: "Land123 "}) if at == "embed" else Mortal(ask="Land123?")
    sort_all_out(state, store, worker)
    found = {f.id: f for f in facts.in_states(store, FACT_STATES)}
    assert found[poison].state == "quarantined"
    assert found[poison].reason == "alone: it was killed"
    assert {f.state for f in found.values() if f.id != poison} == {"approved"}
    assert {f.attempts for f in found.values()} == {0}
    assert worker.deaths == 3 + 3  # in groups of 500, 62 and 8, then alone three times
    # Said again it is a duplicate; its text is never given to the worker again.
    again = add_fact(store, "Land123", "Name123", "received")
    if at == "embed":
        sort_all_out(state, store, worker)
        assert facts.get(store, again).same_as == poison
        assert worker.deaths == 6


def test_s07_new_facts_do_not_wait_for_those_that_the_worker_died_of(
    state: State, store: Store
) -> None:
    add_fact(store, "Poison", "X", "received")
    add_fact(store, "Chad", "Deby", "received")
    worker = Mortal(embed="Poison")
    triage = Triage(store, config(state), worker.embed, worker.ask)
    assert triage.run(None, Clock()()).error is not None
    new = add_fact(store, "Peru", "Sagasti", "received")
    assert triage.run(None, Clock()()).facts == 1
    assert facts.get(store, new).state == "approved"


def test_s07_a_worker_that_can_not_begin_quarantines_nothing(state: State, store: Store) -> None:
    fact = add_fact(store, "Poison", "X", "received")
    worker = Mortal(embed="Poison", is_at_work=False)
    triage = Triage(store, config(state), worker.embed, worker.ask)
    for _ in range(9):
        with pytest.raises(WorkerError):
            triage.run(None, Clock()())
    assert (facts.get(store, fact).state, facts.get(store, fact).attempts) == ("received", 0)


def test_s07_a_fact_decided_on_late_does_not_overtake_a_newer_one(
    state: State, store: Store
) -> None:
    """Its group was put off, and meanwhile a newer value of its slot came in and was approved."""
    late = add_fact(store, "Italy", "Draghi", "received")
    with store.write():
        facts.count_tries(store, [facts.get(store, late)], 1)
    new = add_fact(store, "Italy", "Meloni", "received", at=START + timedelta(days=1))
    worker = Mortal()
    sort_all_out(state, store, worker)
    assert facts.get(store, new).state == "approved"
    assert facts.get(store, late).state == "superseded"


def test_s07_a_poison_text_decided_on_elsewhere_stops_no_triage(state: State, store: Store) -> None:
    old = add_fact(store, "Poison", "X")
    others = [add_fact(store, f"Land{n}", "Ada") for n in range(20)]
    new = add_fact(store, "Peru", "Sagasti", "received")
    worker = Mortal(embed="Poison")
    sort_all_out(state, store, worker)
    assert facts.get(store, new).state == "approved"
    assert vectors.of_facts(store, config(state).embedding.name, [old]) == {old: b""}
    known = vectors.of_facts(store, config(state).embedding.name, others)
    assert all(known[one] for one in others)
