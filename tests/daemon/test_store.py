"""The store: durability settings, transitions, the audit chain, migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import START, add_fact, new_state, states

from daemon.errors import Conflict, IntegrityError, NotFound
from daemon.store import FILE, Store
from daemon.store.lifecycle import FACT, FACT_STATES, RELEASE, RELEASE_STATES, next_state


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_state(tmp_path).store() as opened:
        yield opened


def test_the_connection_is_as_durable_as_promised(store: Store) -> None:
    def pragma(name: str) -> object:
        return store.connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1
    assert pragma("trusted_schema") == 0


def test_a_transition_writes_state_reason_revision_and_event_together(store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi", "pending")
    with store.write():
        assert store.transition("fact", fact, "approve", START, "checked") == "approved"
    row = store.one("SELECT state, reason, rev FROM fact WHERE id = ?", fact)
    assert row is not None and tuple(row) == ("approved", "checked", 3)
    event = store.rows("SELECT * FROM event WHERE subject = ?", f"fact:{fact}")[-1]
    assert event["action"] == "fact.approve"
    assert '"from": "pending"' in event["data"]


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi", "pending")
    before = store.verify_events()
    with pytest.raises(RuntimeError), store.write():
        store.transition("fact", fact, "approve", START)
        raise RuntimeError
    assert states(store) == {fact: "pending"}
    assert store.verify_events() == before


def test_a_step_that_the_life_cycle_lacks_is_a_conflict(store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi", "pending")
    with pytest.raises(Conflict, match="cannot promote a fact that is pending"), store.write():
        store.transition("fact", fact, "promote", START)
    with pytest.raises(NotFound), store.write():
        store.transition("fact", 99, "approve", START)


def test_every_state_can_be_reached_and_is_known() -> None:
    assert {to for to in FACT.values()} | {"received"} == set(FACT_STATES)
    assert {s for s, _ in FACT} <= set(FACT_STATES)
    assert {to for to in RELEASE.values()} | {"building"} == set(RELEASE_STATES)


@given(st.sampled_from(FACT_STATES), st.text(max_size=10))
@settings(max_examples=50)
def test_an_unknown_event_is_always_a_conflict(state: str, event: str) -> None:
    if (state, event) not in FACT:
        with pytest.raises(Conflict):
            next_state("fact", state, event)


def test_the_audit_chain_finds_a_changed_row(store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    store.connection.execute("DROP TRIGGER event_is_append_only_update")
    store.connection.execute("UPDATE event SET data = '{}' WHERE seq = 2")
    with pytest.raises(IntegrityError, match="event 2"):
        store.verify_events()


def test_the_audit_chain_finds_a_missing_row(store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    store.connection.execute("DROP TRIGGER event_is_append_only_delete")
    store.connection.execute("DELETE FROM event WHERE seq = 2")
    with pytest.raises(IntegrityError, match="broken"):
        store.verify_events()


@pytest.mark.parametrize("sql", ["UPDATE event SET data = 'x'", "DELETE FROM event"])
def test_events_can_not_be_changed(store: Store, sql: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.connection.execute(sql)


def test_only_one_release_can_be_promoted(store: Store) -> None:
    row = {"number": 1, "state": "promoted", "created_at": "2024"}
    with pytest.raises(sqlite3.IntegrityError):
        store.db["release"].insert(row)


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    import threading

    state = new_state(tmp_path)
    with state.store() as store:
        fact = add_fact(store, "Italy", "Draghi", "pending")
    errors: list[Exception] = []

    def hammer(name: str) -> None:
        try:
            with state.store(name) as mine:
                for _ in range(30):
                    with mine.write():
                        mine.event("test.touch", f"fact:{fact}", {"by": name}, START)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state.store() as store:
        assert errors == []
        assert len(store.rows("SELECT 1 FROM event WHERE action = 'test.touch'")) == 120
        store.verify_events()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    with sqlite3.connect(state.folder / FILE) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(IntegrityError, match="schema 99"):
        state.store()


def test_a_file_that_is_no_database_is_an_integrity_error(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    (state.folder / FILE).write_bytes(b"not a database" * 100)
    for extra in ("-wal", "-shm"):
        (state.folder / (FILE + extra)).unlink(missing_ok=True)
    with pytest.raises(IntegrityError):
        state.store()


def test_reading_only_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []
