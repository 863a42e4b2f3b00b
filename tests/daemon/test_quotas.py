"""Quotas at work: a flood beside an honest source, drops that are counted, logs that wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from world import START, new_state

from daemon import polling, quotas
from daemon.polling import Polled
from daemon.quotas import Dropped
from daemon.state import State
from daemon.store import Store, facts, timestamp
from daemon.store.lifecycle import FACT, FACT_STATES
from demo.feed import document, served
from demo.world import Update

ALL = "max_undecided_facts"
SOURCE = "max_undecided_facts_per_source"
DAY = "max_new_facts_per_source_per_day"


@dataclass
class Log:
    """A correction log that says facts, each of a place of its own."""

    name: str
    path: Path

    def say(self, count: int, first: int = 0) -> None:
        """Append so many facts."""
        with self.path.open("a") as file:
            for i in range(first, first + count):
                row = {"subject": f"{self.name} {i}", "relation": "capital", "object": "X"}
                file.write(json.dumps(row) + "\n")


def changes(name: str, count: int, first: int = 0) -> bytes:
    """A feed that says so many facts, each of a place of its own."""
    subjects = [f"{name} {i}" for i in range(first, first + count)]
    office = ("chief_of_state", "nobody", "Somebody")
    return document([Update("2021-05-01", subject, *office) for subject in subjects])


@dataclass
class Place:
    """A state folder with quotas, and sources that say what a test wants."""

    state: State
    store: Store
    limits: dict[str, int]

    def add(self, name: str, location: str, tier: str, kind: str = "feed") -> int:
        at = timestamp(START)
        row = {"name": name, "kind": kind, "location": location, "tier": tier}
        row |= {"allow_private": "any", "next_poll_at": at, "created_at": at}
        return self.store.insert("source", row)

    def poll(self, name: str, hours: float = 0) -> Polled | None:
        """Poll a source if it is due."""
        config, now = self.state.config(), START + timedelta(hours=hours)
        section = config.ingest.model_copy(update=self.limits)
        config = config.model_copy(update={"ingest": section})
        due = [s for s in polling.due(self.store, now) if s.name == name]
        extract = polling.extractor(config)
        return polling.poll(self.store, due[0], config, extract, now) if due else None

    def subjects(self, *states: str) -> list[str]:
        return [f.subject for f in facts.in_states(self.store, states)]

    def move(self, event: str, *of: str) -> None:
        """Move all facts in the given states along by an event."""
        with self.store.write():
            facts.move(self.store, facts.in_states(self.store, of), event, START)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    state = new_state(tmp_path)
    with state.store() as store:
        yield Place(state, store, {})


def logs(place: Place, folder: Path, **tiers: str) -> dict[str, Log]:
    """Empty logs, each a source of that name and tier."""
    found = {}
    for name, tier in tiers.items():
        path = folder / f"{name}.jsonl"
        path.touch()
        place.add(name, str(path), tier, "log")
        found[name] = Log(name, path)
    return found


def test_a_flood_loses_its_own_oldest_facts_and_nobody_elses(place: Place, tmp_path: Path) -> None:
    place.limits = {SOURCE: 10, ALL: 100}
    at = logs(place, tmp_path, office="trusted", quiet="untrusted", flood="untrusted")
    for name, count in (("office", 3), ("quiet", 3), ("flood", 8)):
        at[name].say(count)
        found = place.poll(name)
        assert found is not None and found.dropped == ()
    at["flood"].say(30, first=8)
    again = place.poll("flood", hours=1)
    assert again is not None
    assert (again.facts, again.dropped) == (30, (Dropped("flood", SOURCE, 28),))
    left = place.subjects("received")
    assert left == [
        *(f"office {i}" for i in range(3)),
        *(f"quiet {i}" for i in range(3)),
        *(f"flood {i}" for i in range(28, 38)),
    ]
    assert len(place.subjects("dropped")) == 28


def test_over_all_the_least_trusted_source_with_the_most_loses_first(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {SOURCE: 20, ALL: 20}
    at = logs(
        place, tmp_path, office="trusted", paper="normal", quiet="untrusted", flood="untrusted"
    )
    for name, count in (("flood", 12), ("quiet", 4), ("office", 4)):
        at[name].say(count)
        place.poll(name)
    at["paper"].say(6)
    first = place.poll("paper")
    at["paper"].say(12, first=6)
    second = place.poll("paper", hours=1)
    assert first is not None and second is not None
    assert first.dropped == (Dropped("flood", ALL, 6),)
    # 12 more: quiet (4) and flood (6) are untrusted, so they go, and then the paper's own oldest
    assert second.dropped == (
        Dropped("quiet", ALL, 4),
        Dropped("flood", ALL, 6),
        Dropped("paper", ALL, 2),
    )
    assert place.subjects("received") == [
        *(f"office {i}" for i in range(4)),
        *(f"paper {i}" for i in range(2, 18)),
    ]


def test_what_was_decided_on_or_brought_in_by_hand_is_never_dropped(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {SOURCE: 2, ALL: 2}
    at = logs(place, tmp_path, flood="untrusted")
    at["flood"].say(2)
    place.poll("flood")
    place.move("approve", "received")
    with place.store.write():
        place.store.connection.execute(
            "INSERT INTO fact (subject, relation, object, prompts, held_out, slot_key,"
            " fact_key, tier, extractor, state, asserted_at, received_at) SELECT 'by hand',"
            " relation, object, prompts, held_out, slot_key, fact_key, tier, extractor,"
            " 'pending', asserted_at, received_at FROM fact WHERE id = 1"
        )
    at["flood"].say(5, first=2)
    place.poll("flood", hours=1)
    assert place.subjects("approved") == ["flood 0", "flood 1"]
    assert place.subjects("pending") == ["by hand"]
    assert place.subjects("received") == ["flood 5", "flood 6"]


@pytest.mark.parametrize("event", ["hold", "conflict", "quarantine"])
def test_all_that_nobody_has_decided_on_counts(place: Place, tmp_path: Path, event: str) -> None:
    place.limits = {SOURCE: 3, ALL: 3}
    at = logs(place, tmp_path, flood="normal")
    at["flood"].say(3)
    place.poll("flood")
    place.move(event, "received")
    at["flood"].say(1, first=3)
    place.poll("flood", hours=1)
    assert place.subjects("dropped") == ["flood 0"]
    assert place.subjects("received") == ["flood 3"]


def test_the_states_that_count_are_those_that_a_fact_can_be_dropped_from(place: Place) -> None:
    place.add("world", "x", "normal")
    for state in FACT_STATES:
        place.store.connection.execute(
            "INSERT INTO fact (subject, relation, object, prompts, held_out, slot_key, fact_key,"
            " tier, extractor, state, asserted_at, received_at, vouched_by)"
            " VALUES ('s', 'r', 'o', '[]', '[]', 'k', 'k', 'normal', 'x', ?, '2024', '2024', 1)",
            (state,),
        )
    (queue,) = quotas.queues(place.store)
    assert queue.undecided == len([s for s, event in FACT if event == "drop"]) == 4


def test_what_a_feed_brings_over_its_day_is_dropped_and_the_next_day_starts_anew(
    place: Place,
) -> None:
    place.limits = {DAY: 10}
    with served(changes("busy", 7)) as feed:
        place.add("busy", feed.url, "trusted")
        place.poll("busy")
        place.move("approve", "received")
        feed.publish(changes("busy", 7, first=7))
        second = place.poll("busy", hours=1)
        feed.publish(changes("busy", 2, first=14))
        third = place.poll("busy", hours=23)
        feed.publish(changes("busy", 8, first=16))
        fourth = place.poll("busy", hours=24.5)
    assert second is not None and second.dropped == (Dropped("busy", DAY, 4),)
    assert third is not None and third.dropped == (Dropped("busy", DAY, 2),)
    # the first 7 are a day old; 3 count, so 7 more may come
    assert fourth is not None and fourth.dropped == (Dropped("busy", DAY, 1),)
    assert place.subjects("approved") == [f"busy {i}" for i in range(7)]
    assert len(place.subjects("received")) == 3 + 0 + 7


def test_a_drop_is_in_the_facts_history_counted_and_one_event_of_the_source(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {SOURCE: 2}
    at = logs(place, tmp_path, flood="normal")
    at["flood"].say(5)
    place.poll("flood")
    reason = f"over {SOURCE} = 2"
    dropped = facts.in_states(place.store, ("dropped",))
    assert {f.reason for f in dropped} == {reason}
    assert all(facts.evidence(place.store, f.id)[0].source == "flood" for f in dropped)
    (event,) = place.store.rows("SELECT * FROM event WHERE action = 'source.drop'")
    assert event["subject"] == "source:1"
    told = {"name": "flood", "quota": SOURCE, "facts": 3, "reason": reason}
    assert json.loads(event["data"]) == told
    of_one = place.store.rows("SELECT action FROM event WHERE subject = 'fact:1' ORDER BY seq")
    assert [row["action"] for row in of_one] == ["fact.receive", "fact.drop"]
    assert quotas.since(place.store, START - timedelta(hours=1)) == (Dropped("flood", SOURCE, 3),)
    assert quotas.since(place.store, START) == ()
    assert place.store.verify_events() == 1 + 5 + 3 + 1  # the first is the bare model's


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the project may catch it."""


@pytest.mark.parametrize("step", range(1, 14))
def test_a_crash_leaves_neither_a_poll_without_its_drops_nor_drops_without_the_poll(
    place: Place, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events: 5 received, then 3 dropped and 1 of the source; the last steps are after them."""
    place.limits = {SOURCE: 2}
    left = [step]

    def dies(original: object) -> object:
        def act(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return original(*args, **kwargs)  # type: ignore[operator]

        return act

    at = logs(place, tmp_path, flood="normal")
    at["flood"].say(5)
    monkeypatch.setattr(Store, "event", dies(Store.event))
    monkeypatch.setattr(polling, "_note_success", dies(polling._note_success))
    died = False
    try:
        place.poll("flood")
    except Crash:
        died = True
    monkeypatch.undo()
    assert died == (step <= 10)
    assert len(facts.in_states(place.store, FACT_STATES)) == (0 if died else 5)
    assert len(place.store.rows("SELECT * FROM dropped")) == (0 if died else 1)
    if died:
        again = place.poll("flood")
        assert again is not None and again.dropped == (Dropped("flood", SOURCE, 3),)
    assert len(place.subjects("received")) == 2
    assert len(place.subjects("dropped")) == 3
    place.store.verify_events()


def test_a_log_is_read_no_faster_than_triage_looks_at_it_and_loses_nothing(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {"max_rows_per_poll": 4, SOURCE: 5, ALL: 5}
    logs(place, tmp_path, log="trusted")["log"].say(11)
    brought = []
    while found := place.poll("log"):
        assert (found.dropped, found.quota) == ((), None)
        brought.append((found.facts, found.waits))
        if found.waits:
            place.move("approve", "received")
    assert brought == [(4, False), (0, True), (4, False), (0, True), (3, False)]
    place.move("approve", "received")
    assert place.subjects("approved") == [f"log {i}" for i in range(11)]


def test_a_log_that_has_had_its_day_waits_in_its_file_for_the_next(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {DAY: 6}
    logs(place, tmp_path, log="trusted")["log"].say(10)
    first, waiting = place.poll("log"), place.poll("log")
    assert first is not None and (first.facts, first.more) == (6, True)
    assert waiting is not None and (waiting.waits, waiting.quota) == (True, DAY)
    assert place.poll("log") is None  # due again at the next poll, not at once
    rest = place.poll("log", hours=24.5)
    assert rest is not None and (rest.facts, rest.more) == (4, False)
    assert place.subjects("received") == [f"log {i}" for i in range(10)]
    assert place.subjects("dropped") == []


def test_an_undecided_log_of_an_untrusted_source_still_loses_its_oldest(
    place: Place, tmp_path: Path
) -> None:
    place.limits = {"max_rows_per_poll": 4, SOURCE: 5}
    logs(place, tmp_path, log="untrusted")["log"].say(8)
    place.poll("log")
    place.move("hold", "received")
    second = place.poll("log")
    assert second is not None and second.dropped == (Dropped("log", SOURCE, 3),)
    assert place.subjects("dropped") == ["log 0", "log 1", "log 2"]


def test_the_undecided_facts_are_counted_by_their_own_index(place: Place) -> None:
    """At 100,000 undecided facts among 500,000 that is 8 ms a poll, and 50 ms without."""
    asked: list[str] = []
    place.store.connection.set_trace_callback(asked.append)
    quotas.queues(place.store)
    place.store.connection.set_trace_callback(None)
    plan = place.store.rows(f"EXPLAIN QUERY PLAN {asked[-1]}")
    assert any("COVERING INDEX fact_undecided" in row["detail"] for row in plan)
