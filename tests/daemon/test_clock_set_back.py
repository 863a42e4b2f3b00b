"""The clock ran ahead for a day and was corrected: what is said after that is news all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from reader_world import FACT, PROSE, World, atom
from test_reader_facts import World as Sorted
from world import START, add_fact, config, new_state

from daemon import polling, quotas
from daemon.cli import decisions
from daemon.state import State
from daemon.store import Store, facts, timestamp
from tests.ingest.reader_server import says, serving, stated, status

TOMORROW = START + timedelta(days=1)
SAYS = {"subject": "Chad", "relation": "head_of_government"}


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path / "plain")


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        yield opened


def test_a_correction_by_hand_takes_the_place_of_what_is_dated_ahead(
    tmp_path: Path, store: Store
) -> None:
    world = Sorted(tmp_path, store)
    ahead = world.add("Saleh Kebzabo", "pattern/1", at=TOMORROW)
    world.sort_out()
    row = {**SAYS, "object": "Succès Masra"}
    said = decisions.add(store, world.config, row, "checked", START)
    assert said.result == "received"
    found = world.sort_out()
    assert found == {ahead: "superseded", ahead + 1: "approved"}
    fact = facts.get(store, ahead + 1)
    assert TOMORROW < fact.received_at == fact.asserted_at
    (event,) = store.rows(f"SELECT at FROM event WHERE subject = 'fact:{fact.id}' LIMIT 1")
    assert event["at"] == timestamp(START)  # the audit log has the clock's own time


def test_one_fact_with_an_early_time_ends_nobodys_protection(store: Store) -> None:
    """As in a store that an earlier wised wrote."""
    add_fact(store, "Italy", "Draghi", at=TOMORROW)
    early = add_fact(store, "Peru", "Sagasti", at=START)
    store.table("fact").update(early, {"received_at": timestamp(START)})
    assert facts.receive_time(store, START) > TOMORROW
    plan = store.rows("EXPLAIN QUERY PLAN SELECT max(received_at) AS last FROM fact")
    assert "COVERING INDEX fact_by_receipt" in plan[0]["detail"]


@pytest.mark.parametrize("read_by", [0, 7200])
def test_what_a_reader_finds_after_the_correction_is_news_too(tmp_path: Path, read_by: int) -> None:
    with serving(says(stated(FACT)), atom(PROSE)) as server:
        world = World(tmp_path, server, tier="normal")
        ahead = add_fact(world.store, "Chad", "Saleh Kebzabo", at=TOMORROW)
        world.poll()
        assert world.read(minutes=read_by) == 1
        found = facts.get(world.store, ahead + 1)
        assert found.object == FACT[2]
        if not read_by:  # later the clock has caught up, and the entry's own time is right
            assert found.asserted_at > TOMORROW
        assert found.received_at > TOMORROW
        world.store.close()


def test_an_entry_that_was_received_ahead_is_not_newer_than_when_it_is_read(
    tmp_path: Path,
) -> None:
    with serving(says(stated(FACT)), atom(PROSE)) as server:
        world = World(tmp_path, server, tier="normal")
        world.now = TOMORROW
        world.poll()
        world.now = START
        world.store.connection.execute("UPDATE unread SET next_at = ?", (timestamp(START),))
        assert world.read() == 1
        (found,) = facts.in_states(world.store, ("received",))
        assert found.asserted_at == found.received_at == START
        world.store.close()


def test_facts_dated_ahead_are_counted_on_the_day_on_which_they_came(
    state: State, store: Store, tmp_path: Path
) -> None:
    """Else a source that a wrong clock dated a year ahead is over its quota for a year."""
    log, settings = tmp_path / "flood.jsonl", config(state)
    section = settings.ingest.model_copy(update={"max_new_facts_per_source_per_day": 5})
    settings = settings.model_copy(update={"ingest": section})
    row = {"name": "flood", "kind": "log", "location": str(log), "tier": "normal"}
    at = timestamp(START)
    source = store.insert("source", {**row, "next_poll_at": at, "created_at": at})
    count = 0

    def poll(days: float, rows: int) -> polling.Polled:
        nonlocal count
        with log.open("a") as file:
            for _ in range(rows):
                count += 1
                said = {"subject": f"Place {count}", "relation": "capital", "object": "X"}
                file.write(json.dumps(said) + "\n")
        store.connection.execute("UPDATE source SET next_poll_at = ?", (at,))
        now = START + timedelta(days=days)
        (one,) = polling.due(store, now)
        return polling.poll(store, one, settings, polling.extractor(settings), now)

    def counted(days: float) -> int:
        return quotas.brought(store, source, START + timedelta(days=days))

    assert poll(365, 4).facts == 4
    assert counted(0) == 0
    assert (poll(0, 3).facts, counted(0)) == (3, 3)
    assert (poll(0.1, 3).facts, counted(0.1)) == (2, 5)
    assert poll(0.2, 0).waits
    assert (poll(1.05, 0).facts, counted(1.05)) == (1, 3)


def test_a_reader_that_waited_by_the_old_clock_tries_again(tmp_path: Path) -> None:
    with serving(status(503), atom(PROSE)) as server:
        world = World(tmp_path, server)
        world.now = TOMORROW
        world.poll()
        world.read()
        server.act = says(stated(FACT))
        world.now = START
        world.store.connection.execute("UPDATE unread SET next_at = ?", (timestamp(START),))
        assert world.read() == 0
        world.reads.clock_was_set()
        assert world.read() == 1
        world.store.close()
