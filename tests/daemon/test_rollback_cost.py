"""A rollback costs what differs between two releases, a status what waits; not what is held."""

import pytest
from cli_world import EDITED, NOW, add_fact, add_release, add_source, new_state, state_of

from daemon import releases, status
from daemon.store import timestamp

DIFFERENT = 5
#: SQLite's own steps for each fact that both releases hold: it goes once through the keys of one
#: release and looks each up in the other, 15 steps. Looking through a release for each fact that
#: differs took 45, and more with each of those
MOST_STEPS_A_FACT = 25


def steps(state, look):
    """Count SQLite's steps by the ten, in one look at the store; what the look returned."""
    counted = [0]

    def count():
        counted[0] += 10
        return 0

    with state.store(read_only=True) as store:
        store.connection.set_progress_handler(count, 10)
        return counted, look(store)


def many(state, count):
    """Facts that two releases share, put in as they lie after promotion."""
    row = ("capital", "x", "[]", "[]", "trusted", "test/1", "verified", *[timestamp(NOW)] * 2)
    with state.store() as store, store.write():
        ids = range(1000, 1000 + count)
        store.connection.executemany(
            "INSERT INTO fact (id, subject, relation, object, prompts, held_out, slot_key,"
            " fact_key, tier, extractor, state, asserted_at, received_at)"
            " VALUES (?1, 'country ' || ?1, ?2, ?3, ?4, ?5, ?1, ?1, ?6, ?7, ?8, ?9, ?10)",
            [(one, *row) for one in ids],
        )
    return tuple(ids)


def steps_of_a_rollback(folder, shared):
    """Count SQLite's steps (virtual machine instructions, by the hundred) in one rollback."""
    state = new_state(folder)
    ids = many(state, shared)
    new = tuple(add_fact(state, f"new {n}", str(n), events=EDITED) for n in range(DIFFERENT))
    add_release(state, 1, ids)
    add_release(state, 2, (*ids, *new), parent=1)
    counted = [0]

    def count():
        counted[0] += 100
        return 0

    with state.store() as store:
        assert store.one("SELECT name FROM sqlite_schema WHERE name = 'sqlite_stat1'") is None
        store.connection.set_progress_handler(count, 100)
        releases.rollback(state, store, None, NOW, "test")
    assert {state_of(state, one) for one in new} == {"verified"}
    assert state_of(state, ids[0]) == "promoted"
    return counted[0]


def test_a_rollback_looks_at_the_facts_that_differ(tmp_path):
    few, lots = ((tmp_path / "few"), (tmp_path / "lots"))
    grown = steps_of_a_rollback(lots, 4000) - steps_of_a_rollback(few, 2000)
    assert grown / 2000 < MOST_STEPS_A_FACT


@pytest.mark.parametrize("state", ["pending", "approved"])
def test_the_oldest_waiting_fact_is_one_look_away(tmp_path, state):
    made = new_state(tmp_path)
    event = {"pending": "hold", "approved": "approve"}[state]
    many(made, 3000)
    waiting = add_fact(made, "late", "x", events=(event,))
    counted, found = steps(made, status._oldest)
    assert found == (waiting, state, NOW)
    assert counted[0] < 500


def test_entries_that_were_read_cost_the_status_nothing(tmp_path):
    state = new_state(tmp_path)
    source = add_source(state)
    row = (source, "h", "t", timestamp(NOW), "")
    with state.store() as store, store.write():
        store.connection.executemany(
            "INSERT INTO entry (id, key, source_id, content_hash, title, received_at, raw)"
            " VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6)",
            [(one, *row) for one in range(1, 3001)],
        )
        mark = {"entry_id": 2000, "text": "x", "next_at": timestamp(NOW)}
        store.db["unread"].insert(mark)
    counted, found = steps(state, lambda store: status._count(store, status.UNREAD))
    assert found == 1
    assert counted[0] < 500


def test_promoted_facts_cost_the_status_nothing_while_names_stay_what_they_were(tmp_path):
    state = new_state(tmp_path)
    add_release(state, 1, many(state, 3000))
    counted, found = steps(state, lambda store: list(status._disputes(store)))
    assert found == []
    assert counted[0] < 500
