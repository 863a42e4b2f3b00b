"""The store: durability settings, transitions, the audit chain, migrations."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import START, add_fact, new_state, states

import daemon
from daemon import polling, releases
from daemon.errors import Conflict, IntegrityError, NotFound, WisedError
from daemon.store import FILE, Store, database, facts, shards
from daemon.store.lifecycle import FACT, FACT_STATES, RELEASE, RELEASE_STATES, next_state
from daemon.store.schema import APPLICATION_ID, MIGRATIONS
from ingest import LogPosition

ROOT = Path(daemon.__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_state(tmp_path).store() as opened:
        yield opened


PROMISED = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "trusted_schema": 0,
    "busy_timeout": 30_000,
    "application_id": 0x77697365,
    "user_version": len(MIGRATIONS),
}


@pytest.mark.parametrize("read_only", [False, True])
def test_the_connection_is_as_durable_as_promised(tmp_path: Path, read_only: bool) -> None:
    with new_state(tmp_path).store(read_only=read_only) as store:
        for name, value in PROMISED.items():
            assert store.connection.execute(f"PRAGMA {name}").fetchone()[0] == value, name


@pytest.mark.parametrize("read_only", [False, True])
def test_a_setting_that_sqlite_does_not_take_is_an_error_at_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    state = new_state(tmp_path)
    monkeypatch.setitem(database.SETTINGS, "a_pragma_of_the_future", 1)
    with pytest.raises(IntegrityError, match="a_pragma_of_the_future is None and has to be 1"):
        state.store(read_only=read_only)


@pytest.mark.parametrize("how", [{}, {"read_only": True}, {"migrate": True}], ids=str)
@pytest.mark.parametrize("version", [0, len(MIGRATIONS)])
def test_a_database_of_another_program_is_refused_as_it_is(
    tmp_path: Path, version: int, how: dict[str, bool]
) -> None:
    raw = sqlite3.connect(tmp_path / FILE)
    raw.executescript(f"CREATE TABLE theirs (x); PRAGMA user_version = {version}")
    raw.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(IntegrityError, match="no database of wised"):
        Store(tmp_path, **how)
    assert (tmp_path / FILE).read_bytes() == before


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


#: rows of each kind that the first release of this program wrote
FIRST_ROWS = """
INSERT INTO source (id, name, kind, location, tier, next_poll_at, created_at)
    VALUES (3, 'offices', 'feed', 'https://example.org/feed', 'trusted', '2024', '2024-01-01');
INSERT INTO entry (id, source_id, key, content_hash, title, received_at, raw)
    VALUES (5, 3, 'tag:1', 'abc', 'Italy: head of government is now Draghi', '2024', '{}');
INSERT INTO batch (id, state, attempts, created_at) VALUES (1, 'built', 1, '2024-01-02');
INSERT INTO fact (id, subject, relation, object, prompts, held_out, slot_key, fact_key, tier,
        extractor, state, asserted_at, received_at, batch_id)
    VALUES (7, 'Italy', 'head_of_government', 'Draghi', '["Who ?"]', '[]', 'slot', 'key',
        'trusted', 'row/1', 'promoted', '2024-01-01T00:00:00+00:00',
        '2024-01-01T00:00:00+00:00', 1);
INSERT INTO evidence VALUES (7, 5, 'is now Draghi');
INSERT INTO release (number, state, created_at) VALUES (0, 'previous', '2024-01-01T00:00:00+00:00');
INSERT INTO release (number, state, folder, parent, batch_id, measures, created_at)
    VALUES (1, 'promoted', '000001', 0, 1, '{"reliability": {"right": 1, "asked": 1}}',
        '2024-01-02T00:00:00+00:00');
INSERT INTO release_fact VALUES (1, 0, 7);
"""
FIRST_TABLES = ("source", "entry", "batch", "fact", "evidence", "release", "release_fact")


def rows_of(raw: sqlite3.Connection) -> dict[str, list[dict[str, object]]]:
    """Each table's rows by their columns' names."""
    found = {}
    for table in FIRST_TABLES:
        cursor = raw.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        found[table] = [dict(zip(names, row, strict=True)) for row in cursor]
    return found


@pytest.fixture
def first_schema(tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    """A database made by the first migration alone; its rows."""
    raw = sqlite3.connect(tmp_path / FILE)
    raw.executescript(MIGRATIONS[0])
    raw.executescript(FIRST_ROWS)
    raw.executescript(f"PRAGMA user_version = 1; PRAGMA application_id = {APPLICATION_ID}")
    rows = rows_of(raw)
    raw.close()
    return rows


def test_c07_a_database_of_the_first_schema_is_brought_up_and_keeps_its_rows(
    tmp_path: Path, first_schema: dict[str, list[dict[str, object]]]
) -> None:
    with Store(tmp_path, migrate=True) as store:
        assert store.connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert store.connection.execute("PRAGMA application_id").fetchone()[0] == 0x77697365
        assert store.connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert store.rows("PRAGMA foreign_key_check") == []
        now = rows_of(store.connection)
        new = {
            "release": {
                "kind": "update",
                "rewritten": "[]",
                "last_fact": None,
                "settings": None,
                "approved": 0,
                "died": 0,
            },
            "release_fact": {"shard": None},
            "fact": {"brought_by": 3, "vouched_by": 3},
            "source": {
                "format": "auto",
                "log_tail": None,
                "log_inode": None,
                "allow_private": "",
                "last_full_at": None,
                "moved_to": None,
                "moved_polls": 0,
                "letters_dropped": 0,
            },
            "batch": {"deaths": 0, "next_attempt_at": None, "split_from": None},
        }
        for table, before in first_schema.items():
            assert before
            assert now[table] == [{**row, **new.get(table, {})} for row in before]
        assert store.rows("SELECT * FROM shard") == store.rows("SELECT * FROM settings") == []


def test_a_release_of_the_first_schema_reads_as_an_update_without_known_shards(
    tmp_path: Path, first_schema: object
) -> None:
    with Store(tmp_path, migrate=True) as store:
        one = releases.promoted(store)
        assert (one.number, one.kind, one.rewritten) == (1, "update", ())
        assert (one.last_fact, one.settings) == (None, None)
        assert [fact.object for fact in facts.of_release(store, 1)] == ["Draghi"]
        assert (shards.of_release(store, 1), shards.of_facts(store, 1)) == ([], {})


def test_a_source_of_the_first_schema_goes_on_with_its_log_where_it_was(
    tmp_path: Path, first_schema: object
) -> None:
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute("UPDATE source SET kind = 'log', log_offset = 7, log_fingerprint = 'ab'")
    raw.commit()
    raw.close()
    with Store(tmp_path, migrate=True) as store:
        (source,) = polling.due(store, START)
        assert (source.format, source.position) == ("auto", LogPosition(7, "ab", None, None))
        with pytest.raises(sqlite3.IntegrityError):
            store.connection.execute("UPDATE source SET format = NULL")


def test_a_source_that_any_private_address_was_allowed_keeps_that(
    tmp_path: Path, first_schema: object
) -> None:
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute("UPDATE source SET allow_private = 1")
    raw.commit()
    raw.close()
    with Store(tmp_path, migrate=True) as store:
        (source,) = polling.due(store, START)
        assert source.allowed.any


def test_opening_it_again_changes_nothing(tmp_path: Path, first_schema: object) -> None:
    with Store(tmp_path, migrate=True) as store:
        before = "\n".join(store.connection.iterdump())
    with Store(tmp_path, migrate=True) as store:
        assert "\n".join(store.connection.iterdump()) == before


def test_c07_a_migration_that_fails_half_way_leaves_the_schema_as_it_was(
    tmp_path: Path, first_schema: dict[str, list[dict[str, object]]]
) -> None:
    """The last statement meets a table that is there; what ran before is taken back."""
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute("CREATE TABLE shard (made_by TEXT)")
    raw.close()
    with pytest.raises(WisedError, match="shard already exists"):
        Store(tmp_path, migrate=True)
    raw = sqlite3.connect(tmp_path / FILE)
    assert raw.execute("PRAGMA user_version").fetchone()[0] == 1
    assert rows_of(raw) == first_schema
    assert raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'settings'").fetchall() == []
    raw.execute("DROP TABLE shard")
    raw.close()
    with Store(tmp_path, migrate=True) as store:
        assert releases.promoted(store).kind == "update"


#: brings copies of a database up, each in a process that is killed one statement later than the
#: one before, until one comes through; prints how many were killed. With a cache of one page, what
#: is not committed is in the file's log when it dies
DYING = """
import os, shutil, signal, sqlite3, sys
from pathlib import Path
from daemon.store import Store

class Dying(sqlite3.Connection):
    left = 0
    def execute(self, *args):
        if not args[0].startswith("SELECT"):
            Dying.left -= 1
            if Dying.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*args)

def connect(*args, **more):
    made = plain(*args, factory=Dying, **more)
    sqlite3.Connection.execute(made, "PRAGMA cache_size = 1")
    return made

plain, sqlite3.connect = sqlite3.connect, connect
base, step, status = Path(sys.argv[1]), 0, signal.SIGKILL
while status == signal.SIGKILL:
    step += 1
    folder = base / f"killed-{step}"
    folder.mkdir()
    shutil.copy(base / "wised.db", folder)
    child = os.fork()
    if child == 0:
        Dying.left = step
        Store(folder, migrate=True).close()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
print(step - 1 if status == 0 else status)
"""


def test_c07_killed_at_any_statement_of_its_migrations_a_database_is_brought_up_whole(
    tmp_path: Path, first_schema: object
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with Store(tmp_path, migrate=True) as store:
        whole = "\n".join(store.connection.iterdump())
    found = set()
    for step in range(1, int(done.stdout) + 1):
        folder = tmp_path / f"killed-{step}"
        raw = sqlite3.connect(folder / FILE)
        found.add(raw.execute("PRAGMA user_version").fetchone()[0])
        raw.close()
        with Store(folder, migrate=True) as store:
            assert store.rows("PRAGMA integrity_check")[0][0] == "ok"
            assert "\n".join(store.connection.iterdump()) == whole
    assert found == set(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("read_only", [False, True])
def test_nobody_brings_a_schema_up_unasked(
    tmp_path: Path, first_schema: dict[str, list[dict[str, object]]], read_only: bool
) -> None:
    with pytest.raises(IntegrityError, match=f"schema 1, this wised knows {len(MIGRATIONS)}"):
        Store(tmp_path, read_only=read_only)
    raw = sqlite3.connect(tmp_path / FILE)
    assert raw.execute("PRAGMA user_version").fetchone()[0] == 1
    assert rows_of(raw) == first_schema
    raw.close()


@pytest.mark.parametrize(
    "row",
    [
        {"solved": -1},
        {"fullness": -0.1},
        {"made_in": 9},
        {"release": 9},
        {"position": 0},  # there is one
        {"fullness": "full"},
    ],
    ids=str,
)
def test_a_shard_that_can_not_be_is_refused(
    tmp_path: Path, first_schema: object, row: dict[str, object]
) -> None:
    good = {"release": 1, "position": 1, "made_in": 0, "solved": 0, "fullness": 0.0}
    with Store(tmp_path, migrate=True) as store:
        store.table("shard").insert({**good, "position": 0})
        with pytest.raises(sqlite3.IntegrityError):
            store.table("shard").insert({**good, **row})
        store.table("shard").insert(good)
        assert [shard.position for shard in shards.of_release(store, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "legal"),
    [("update", True), ("compaction", True), ("emergency", True), ("merge", False), (None, False)],
)
def test_a_release_is_of_one_of_three_kinds(
    tmp_path: Path, first_schema: object, kind: str | None, legal: bool
) -> None:
    sql = "UPDATE release SET kind = ? WHERE number = 1"
    with Store(tmp_path, migrate=True) as store:
        if legal:
            store.connection.execute(sql, (kind,))
        else:
            with pytest.raises(sqlite3.IntegrityError):
                store.connection.execute(sql, (kind,))
        assert releases.promoted(store).kind == (kind if legal else "update")


def test_a_file_that_is_no_database_is_an_integrity_error(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    (state.folder / FILE).write_bytes(b"not a database" * 100)
    for extra in ("-wal", "-shm"):
        (state.folder / (FILE + extra)).unlink(missing_ok=True)
    with pytest.raises(IntegrityError):
        state.store()


@pytest.mark.parametrize("read_only", [False, True])
def test_nobody_makes_a_database_unasked(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(NotFound):
        Store(tmp_path, read_only=read_only)
    assert list(tmp_path.iterdir()) == []
