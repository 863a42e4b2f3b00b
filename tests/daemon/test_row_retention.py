"""Old rows lose what nobody needs, a few at a time; what tells an entry again stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cli_world import wised
from test_polling import UPDATES, add_source, poll
from world import START, new_state

from daemon import service
from daemon.retention import KEEP_LETTERS, REST, STEP_ROWS, Retention, Trimmed
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store, timestamp
from demo.feed import document, served

WEEK = timedelta(days=7)
TEXT = "x" * 200


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path)


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        add_source(opened, "feed", "https://example.org/feed")
        yield opened


def add_entries(store: Store, count: int, days: float = 0) -> None:
    """Entries that came in one poll, so many days after the start."""
    at = timestamp(START + timedelta(days=days))
    row = {"source_id": 1, "content_hash": "h", "title": "t", "received_at": at, "raw": TEXT}
    with store.write():
        store.table("entry").insert_all({**row, "key": f"{days} {i}"} for i in range(count))


def add_letters(store: Store, source: int, count: int) -> None:
    row = {"source_id": source, "location": "row", "code": "row.bad", "message": "bad"}
    row |= {"received_at": timestamp(START)}
    with store.write():
        store.table("dead_letter").insert_all({**row, "raw": str(i)} for i in range(count))


def texts(store: Store) -> int:
    """How many entries have one."""
    return len(store.rows("SELECT id FROM entry WHERE raw != ''"))


def walk(state: State, store: Store, days: float) -> list[Trimmed]:
    """All steps until the walk rests."""
    one, done = Retention(store, state.config()), []
    while not done or done[-1] != Trimmed():
        done.append(one.step(START + timedelta(days=days)))
        assert len(done) < 100
    return done[:-1]


def test_the_text_of_old_entries_goes_in_steps_and_their_rows_stay(
    state: State, store: Store
) -> None:
    add_entries(store, 3 * STEP_ROWS + 7)
    add_entries(store, STEP_ROWS, days=2)
    assert walk(state, store, days=7) == []  # not older than a week
    done = walk(state, store, days=8)
    assert [one.texts for one in done] == [STEP_ROWS] * 3 + [7]
    assert texts(store) == STEP_ROWS
    assert len(store.rows("SELECT id FROM entry")) == 4 * STEP_ROWS + 7


def test_a_walk_gets_past_entries_that_keep_their_text(state: State, store: Store) -> None:
    add_entries(store, 2 * STEP_ROWS + 1)
    add_fact_of(store, range(1, 2 * STEP_ROWS + 1))
    one, late = Retention(store, state.config()), START + 2 * WEEK
    assert [one.step(late).texts for _ in range(3)] == [0, 0, 1]
    assert texts(store) == 2 * STEP_ROWS


def add_fact_of(store: Store, entries: range) -> int:
    """A fact that entries are evidence for."""
    with store.write():
        row = {"subject": "Italy", "relation": "capital", "object": "Rome", "state": "received"}
        row |= {"prompts": "[]", "held_out": "[]", "slot_key": "s", "fact_key": "f"}
        row |= {"tier": "normal", "extractor": "test/1"}
        row |= {"asserted_at": timestamp(START), "received_at": timestamp(START)}
        number = store.insert("fact", row)
        links = ({"fact_id": number, "entry_id": i, "quote": "Rome"} for i in entries)
        store.table("evidence").insert_all(links)
    return number


@pytest.mark.parametrize(
    ("steps", "stays"),
    [
        ((), True),
        (("hold",), True),
        (("hold", "reject"), True),  # a person may have to say why
        (("hold", "drop"), False),
        (("known",), False),
        (("duplicate",), False),
    ],
    ids=str,
)
def test_evidence_keeps_its_text_unless_its_fact_came_to_nothing(
    state: State, store: Store, steps: tuple[str, ...], stays: bool
) -> None:
    add_entries(store, 1)
    fact = add_fact_of(store, range(1, 2))
    with store.write():
        for step in steps:
            store.transition("fact", fact, step, START)
    walk(state, store, days=8)
    assert bool(texts(store)) == stays
    (shown,) = wised(state, "fact", "show", str(fact), "--json").json["fact"]["evidence"]
    assert (shown["quote"], shown["raw"]) == ("Rome", TEXT if stays else "")


def test_an_entry_that_is_still_to_be_read_keeps_its_text(state: State, store: Store) -> None:
    add_entries(store, 1)
    store.insert("unread", {"entry_id": 1, "text": TEXT, "next_at": timestamp(START)})
    walk(state, store, days=8)
    assert texts(store) == 1


def test_an_entry_without_its_text_is_not_taken_for_new(state: State, store: Store) -> None:
    with served(document(UPDATES)) as feed:
        store.table("source").update(1, {"location": feed.url})
        (first,) = poll(state, store)
        assert first.entries == 5
        with store.write():
            store.connection.execute("UPDATE fact SET state = 'known'")
        walk(state, store, days=8)
        assert texts(store) == 0
        store.connection.execute("UPDATE source SET etag = NULL, last_modified = NULL")
        (again,) = poll(state, store, hours=8 * 24)
    assert (again.entries, again.facts, again.unchanged) == (0, 0, False)


def test_the_oldest_dead_letters_of_a_source_go_and_are_counted_on(
    state: State, store: Store
) -> None:
    add_source(store, "log", "/var/log/other.jsonl")
    add_letters(store, 1, KEEP_LETTERS + STEP_ROWS + 5)
    add_letters(store, 2, KEEP_LETTERS)
    assert [one.letters for one in walk(state, store, days=0)] == [STEP_ROWS, 5]
    left = store.rows("SELECT source_id, count(*), min(id) FROM dead_letter GROUP BY source_id")
    first = STEP_ROWS + 6
    assert [tuple(row) for row in left] == [
        (1, KEEP_LETTERS, first),
        (2, KEEP_LETTERS, first + KEEP_LETTERS),
    ]
    counted = [s["dead_letters"] for s in wised(state, "source", "list", "--json").json["sources"]]
    assert counted == [KEEP_LETTERS + STEP_ROWS + 5, KEEP_LETTERS]


def test_a_walk_rests_for_an_hour(state: State, store: Store) -> None:
    one, now = Retention(store, state.config()), START + WEEK
    assert one.step(now) == Trimmed()
    add_entries(store, 1, days=-1)
    assert one.step(now + REST - timedelta(seconds=1)) == Trimmed()
    assert one.step(now + REST) == Trimmed(texts=1)


def test_the_daemon_trims_as_it_works_whatever_is_on_hold(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, dict[str, object]]] = []

    class Said:
        def __getattr__(self, level: str) -> object:
            return lambda event, **fields: lines.append((event, fields))

    add_entries(store, 2)
    store.table("hold").insert({"kind": "edit", "reason": "quiet", "since": timestamp(START)})
    monkeypatch.setattr(service, "now", lambda: START + timedelta(days=8))
    Service(state, store, state.config(), Said(), Asked(30)).work()
    assert lines == [("rows.trimmed", {"texts": 2, "dead_letters": 0})]


def test_a_walk_reads_only_entries_that_still_have_a_text(store: Store) -> None:
    plan = store.rows(
        "EXPLAIN QUERY PLAN SELECT id FROM entry WHERE raw != '' AND received_at < ?"
        " AND (received_at, id) > (?, ?) ORDER BY received_at, id LIMIT 500",
        *("", "", 0),
    )
    assert "entry_with_text" in plan[0]["detail"]
    assert not any("TEMP B-TREE" in row["detail"] for row in plan)
