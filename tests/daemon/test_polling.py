"""Polling a real feed and a real log: nothing twice, nothing lost, validators honoured."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from test_reader_facts import World as Sorted
from world import START

from daemon import polling
from daemon.polling import Polled
from daemon.state import State
from daemon.store import Store, facts, timestamp
from demo.feed import document, served
from demo.world import updates

UPDATES = [u for u in updates() if u.date.startswith("2021")][:5]


def add_source(
    store: Store, kind: str, location: str, tier: str = "trusted", name: str = ""
) -> None:
    row = {
        "name": name or kind,
        "kind": kind,
        "location": location,
        "tier": tier,
        "allow_private": "any",
    }
    at = timestamp(START)
    store.insert("source", {**row, "next_poll_at": at, "created_at": at})


def poll(state: State, store: Store, hours: float = 0) -> list[Polled]:
    config, now = state.config(), START + timedelta(hours=hours)
    extract = polling.extractor(config)
    return [polling.poll(store, s, config, extract, now) for s in polling.due(store, now)]


def test_a_feed_is_read_once_and_then_only_asked_whether_it_changed(
    state: State, store: Store
) -> None:
    with served(document(UPDATES)) as feed:
        feed.modified = format_datetime(START, usegmt=True)
        add_source(store, "feed", feed.url)
        (first,) = poll(state, store)
        assert (first.entries, first.facts, first.dead) == (5, 5, 0)
        assert poll(state, store) == []  # not due yet
        (second,) = poll(state, store, hours=1)
        assert second.unchanged
    stored = facts.in_states(store, ("received",))
    assert {(f.subject, f.relation, f.object) for f in stored} == {
        (u.subject, u.relation, u.new) for u in UPDATES
    }
    assert stored[0].asserted_at.date().isoformat() == UPDATES[0].date


def test_entries_seen_again_without_validators_bring_nothing_new(
    state: State, store: Store
) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        poll(state, store)
        store.connection.execute("UPDATE source SET etag = NULL, last_modified = NULL")
        (again,) = poll(state, store, hours=1)
    assert (again.entries, again.facts, again.unchanged) == (0, 0, False)


def test_a_normal_source_does_not_date_its_own_facts(state: State, store: Store) -> None:
    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url, tier="normal")
        poll(state, store)
    assert {f.asserted_at for f in facts.in_states(store, ("received",))} == {START}


def test_a_feed_that_fails_is_backed_off_and_named(state: State, store: Store) -> None:
    add_source(store, "feed", "http://127.0.0.1:9/none")
    (found,) = poll(state, store)
    assert found.error is not None and found.error.startswith("fetch.")
    row = store.one("SELECT * FROM source")
    assert row is not None and row["failures"] == 1
    assert row["next_poll_at"] > timestamp(START)


def test_a_log_is_tailed_by_offset_and_a_malformed_line_stops_nothing(
    state: State, store: Store, tmp_path: Path
) -> None:
    log = tmp_path / "corrections.jsonl"
    row = {"subject": "Italy", "relation": "head_of_government", "object": "Mario Draghi"}
    log.write_text(json.dumps(row) + '\n{"prompt": "Who\n')
    add_source(store, "log", str(log))
    (first,) = poll(state, store)
    assert (first.facts, first.dead) == (1, 1)
    with log.open("a") as file:
        file.write(json.dumps({**row, "subject": "Peru"}) + "\n")
    (second,) = poll(state, store, hours=1)
    assert (second.facts, second.dead) == (1, 0)
    letter = store.one("SELECT * FROM dead_letter")
    assert letter is not None and letter["code"] == "row.bad_json"


def test_of_a_logs_rows_the_later_is_newer_also_within_one_poll(
    state: State, store: Store, tmp_path: Path
) -> None:
    log, row = tmp_path / "corrections.jsonl", {"subject": "Chad", "relation": "head_of_government"}
    said = ["Albert Padacké", "Saleh Kebzabo", "Succès Masra"]
    log.write_text("".join(json.dumps({**row, "object": name}) + "\n" for name in said))
    add_source(store, "log", str(log))
    (found,) = poll(state, store)
    assert found.facts == 3
    after = Sorted(tmp_path / "other", store).sort_out()
    assert after == {1: "superseded", 2: "superseded", 3: "approved"}


def test_a_log_is_read_in_its_sources_format(state: State, store: Store, tmp_path: Path) -> None:
    log = tmp_path / "corrections.jsonl"
    row = {"prompt": "The capital of Chad is", "chosen": "Abéché", "rejected": "N'Djamena"}
    log.write_text(json.dumps({**row, "right": "x"}) + "\n")
    add_source(store, "log", str(log))
    (by_keys,) = poll(state, store)
    assert (by_keys.facts, by_keys.dead) == (0, 1)
    store.connection.execute("UPDATE source SET format = 'trl', log_offset = NULL")
    (named,) = poll(state, store, hours=1)
    assert (named.facts, named.dead) == (1, 0)


def test_a_source_with_a_format_that_no_longer_exists_says_so_and_is_kept(
    state: State, store: Store, tmp_path: Path
) -> None:
    add_source(store, "log", str(tmp_path / "corrections.jsonl"))
    store.connection.execute("UPDATE source SET format = 'csv'")
    (found,) = poll(state, store)
    assert found.error is not None and found.error.startswith("log.unknown_format")


def test_rows_left_unread_in_a_rotated_log_are_stored_once(
    state: State, store: Store, tmp_path: Path
) -> None:
    """The position is stored with the inode and the bytes before it, so it survives a restart."""
    log = tmp_path / "corrections.jsonl"

    def write(*subjects: str) -> None:
        with log.open("a") as file:
            for subject in subjects:
                row = {"subject": subject, "relation": "capital", "object": "X"}
                file.write(json.dumps(row) + "\n")

    write("Chad")
    add_source(store, "log", str(log))
    poll(state, store)
    write("Mali")
    log.rename(tmp_path / "corrections.jsonl.1")
    write("Peru")
    (second,) = poll(state, store, hours=1)
    assert (second.entries, second.dead, second.more) == (2, 0, False)
    (third,) = poll(state, store, hours=2)
    assert (third.entries, third.dead) == (0, 0)
    stored = facts.in_states(store, ("received",))
    assert [fact.subject for fact in stored] == ["Chad", "Mali", "Peru"]


def test_validators_and_entries_are_stored_together_or_not_at_all(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two would turn into a permanent 304 and lost facts."""

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with served(document(UPDATES)) as feed:
        add_source(store, "feed", feed.url)
        monkeypatch.setattr(polling, "_note_success", crash)
        with pytest.raises(KeyboardInterrupt):
            poll(state, store)
        monkeypatch.undo()
        assert facts.in_states(store, ("received",)) == []
        (again,) = poll(state, store)
        assert again.facts == 5


def test_s09_news_after_the_clock_was_set_back_still_counts_as_newer(
    state: State, store: Store, tmp_path: Path
) -> None:
    """A normal source's facts are dated by when they came in: a day back, all would be stale."""
    log = tmp_path / "corrections.jsonl"
    add_source(store, "log", str(log), tier="normal")
    for hours, leader in ((24, "Draghi"), (0, "Meloni"), (1, "Schlein")):
        row = {"subject": "Italy", "relation": "head_of_government", "object": leader}
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        store.connection.execute("UPDATE source SET next_poll_at = ?", (timestamp(START),))
        poll(state, store, hours=hours)
    stored = facts.in_states(store, ("received",))
    assert [fact.object for fact in stored] == ["Draghi", "Meloni", "Schlein"]
    assert stored[0].asserted_at < stored[1].asserted_at < stored[2].asserted_at


def test_sources_added_together_are_not_polled_together_for_ever(
    state: State, store: Store
) -> None:
    with served(document(UPDATES)) as feed:
        for name in "abcdefgh":
            add_source(store, "feed", feed.url, name=name)
        poll(state, store)
    rows = store.rows("SELECT next_poll_at FROM source")
    waits = [datetime.fromisoformat(row["next_poll_at"]) - START for row in rows]
    assert len(set(waits)) > 1
    assert all(timedelta(minutes=30) <= wait <= timedelta(minutes=33) for wait in waits)
