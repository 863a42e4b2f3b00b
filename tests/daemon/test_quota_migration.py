"""The table of facts made anew: nothing is lost, what refers to it still does."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from daemon import quotas
from daemon.errors import IntegrityError
from daemon.store import FILE, Store, facts
from daemon.store.lifecycle import FACT_STATES
from daemon.store.schema import APPLICATION_ID, M006_QUOTAS, MIGRATIONS
from policies.quota import Queue
from policies.trust import Tier

BEFORE = MIGRATIONS.index(M006_QUOTAS)
#: states that facts could be in before
OLD_STATES = tuple(state for state in FACT_STATES if state != "dropped")

ROWS = """
INSERT INTO source (id, name, kind, location, tier, next_poll_at, created_at) VALUES
    (1, 'flood', 'feed', 'https://a.example/', 'untrusted', '2024', '2024'),
    (2, 'office', 'feed', 'https://b.example/', 'trusted', '2024', '2024'),
    (3, 'operator', 'log', 'operator', 'trusted', '2024', '2024');
INSERT INTO entry (id, source_id, key, content_hash, title, received_at, raw) VALUES
    (11, 1, 'a', 'a', 'a', '2024', '{}'), (12, 2, 'b', 'b', 'b', '2024', '{}'),
    (13, 3, 'c', 'c', 'c', '2024', '{}'), (14, 2, 'd', 'd', 'd', '2024', '{}');
INSERT INTO batch (id, state, created_at) VALUES (4, 'built', '2024');
"""
FACT = """
INSERT INTO fact (id, subject, relation, object, prompts, held_out, slot_key, fact_key, tier,
        extractor, state, reason, rev, asserted_at, received_at, same_as, batch_id, attempts)
    VALUES (?, 'Italy', 'capital', 'Rome', '["Who ?"]', '[]', 'slot', 'key', 'normal', 'row/1', ?,
        'why', 3, '2024-01-01T00:00:00+00:00', '2024-01-02T00:00:00+00:00', ?, ?, 2)
"""
REFERRING = """
INSERT INTO evidence VALUES
    (101, 11, 'said'), (101, 12, 'said again'), (102, 13, 'typed'), (103, 14, 'said'),
    (104, 11, 'said');
INSERT INTO embedding (fact_id, model, vector) VALUES (101, 'm', x'00');
INSERT INTO release (number, state, created_at) VALUES (0, 'previous', '2024');
INSERT INTO release (number, state, batch_id, created_at) VALUES (1, 'promoted', 4, '2024');
INSERT INTO release_fact (release, position, fact_id) VALUES (1, 0, 103);
"""
TABLES = ("source", "entry", "batch", "evidence", "embedding", "release", "release_fact")


@pytest.fixture
def before(tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    """A database of the migrations before this one, with a fact in each state; its rows."""
    raw = sqlite3.connect(tmp_path / FILE)
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA journal_mode = WAL")
    for script in MIGRATIONS[:BEFORE]:
        raw.executescript(script)
    raw.executescript(ROWS)
    kinds = ("pending", "received", "promoted", "duplicate")
    states = (*kinds, *(state for state in OLD_STATES if state not in kinds))
    for number, state in enumerate(states, 101):
        raw.execute(FACT, (number, state, 101 if state == "duplicate" else None, 4))
    raw.executescript(REFERRING)
    raw.executescript(f"PRAGMA user_version = {BEFORE}; PRAGMA application_id = {APPLICATION_ID}")
    raw.commit()
    rows = {name: rows_of(raw, name) for name in ("fact", *TABLES)}
    raw.close()
    return rows


def rows_of(raw: sqlite3.Connection, table: str) -> list[dict[str, object]]:
    return [dict(row) for row in raw.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]


def test_every_row_is_kept_and_what_refers_to_facts_still_does(
    tmp_path: Path, before: dict[str, list[dict[str, object]]]
) -> None:
    with Store(tmp_path, migrate=True) as store:
        raw = store.connection
        assert raw.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert raw.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert raw.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert store.rows("PRAGMA foreign_key_check") == []
        assert len(before["fact"]) == len(OLD_STATES)
        new = {"brought_by", "vouched_by"}
        now = [{k: v for k, v in row.items() if k not in new} for row in rows_of(raw, "fact")]
        assert now == before["fact"]
        for table in TABLES:
            assert before[table]
            found = rows_of(raw, table)
            assert [
                {k: row[k] for k in old} for row, old in zip(found, before[table], strict=True)
            ] == before[table]
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            raw.execute("DELETE FROM fact WHERE id = 101")
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            raw.execute("UPDATE fact SET same_as = 999 WHERE id = 104")
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            raw.execute("INSERT INTO embedding (fact_id, model, vector) VALUES (999, 'm', x'00')")


def test_facts_count_against_the_most_trusted_source_that_says_so(
    tmp_path: Path, before: object
) -> None:
    with Store(tmp_path, migrate=True) as store:
        rows = store.rows("SELECT id, brought_by, vouched_by FROM fact WHERE id < 106 ORDER BY id")
        assert [tuple(row) for row in rows] == [
            (101, 1, 2),  # the office said again what the flood had said
            (102, None, None),  # typed by hand
            (103, 2, 2),
            (104, 1, 1),
            (105, None, None),  # without evidence
        ]
        assert quotas.queues(store) == [Queue(2, Tier.TRUSTED, 1)]


def test_the_new_table_takes_every_state_and_no_other(tmp_path: Path, before: object) -> None:
    with Store(tmp_path, migrate=True) as store:
        for state in FACT_STATES:
            store.connection.execute("UPDATE fact SET state = ? WHERE id = 101", (state,))
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            store.connection.execute("UPDATE fact SET state = 'lost' WHERE id = 101")


def test_the_tables_look_the_same_whether_made_anew_or_brought_up(
    tmp_path: Path, before: object
) -> None:
    def tables(folder: Path) -> list[tuple[str, str]]:
        with Store(folder, migrate=True) as store:
            sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
            return [tuple(row) for row in store.rows(sql)]

    (tmp_path / "new").mkdir()
    found = tables(tmp_path)
    assert found == tables(tmp_path / "new")
    indexes = {name for name, _ in found if name.startswith("fact_")}
    assert indexes == {
        *("fact_by_state", "fact_by_slot", "fact_by_key", "fact_by_batch"),
        *("fact_by_receipt", "fact_by_source", "fact_by_same", "fact_promoted", "fact_undecided"),
    }


def test_a_row_that_refers_to_nothing_stops_it_and_leaves_all_as_it_was(
    tmp_path: Path, before: dict[str, list[dict[str, object]]]
) -> None:
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute("INSERT INTO release_fact (release, position, fact_id) VALUES (1, 1, 999)")
    raw.commit()
    raw.close()
    with pytest.raises(IntegrityError, match="1 rows refer to rows that are missing"):
        Store(tmp_path, migrate=True)
    raw = sqlite3.connect(tmp_path / FILE)
    raw.row_factory = sqlite3.Row
    assert raw.execute("PRAGMA user_version").fetchone()[0] == BEFORE
    assert rows_of(raw, "fact") == before["fact"]
    raw.close()


def test_two_that_open_it_at_once_both_keep_foreign_keys_on(
    tmp_path: Path, before: dict[str, list[dict[str, object]]]
) -> None:
    at_once = threading.Barrier(4)
    found: list[tuple[int, int]] = []

    def open_it() -> None:
        at_once.wait()
        with Store(tmp_path, migrate=True) as store:
            on = store.connection.execute("PRAGMA foreign_keys").fetchone()[0]
            found.append((on, len(facts.in_states(store, FACT_STATES))))

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(1, len(before["fact"]))] * 4
