import hashlib
import json
import sqlite3
from datetime import timedelta

import pytest
from cli_world import NOW, add_fact, add_release, dump, new_state, wised

from daemon.state import State
from daemon.store import keys


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def tamper(state, sql):
    connection = sqlite3.connect(state.folder / "wised.db", isolation_level=None)
    connection.execute("DROP TRIGGER event_is_append_only_update")
    connection.execute("DROP TRIGGER event_is_append_only_delete")
    connection.execute(sql)
    connection.close()


def test_an_untouched_audit_log_is_intact(state):
    add_fact(state)
    assert wised(state, "audit", "verify").rows == [["events", "3"], ["result", "intact"]]
    assert wised(state, "audit", "verify", "--json").json["events"] == 3


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE event SET actor = 'nobody' WHERE seq = 2",
        "DELETE FROM event WHERE seq = 2",
    ],
    ids=["changed", "dropped"],
)
def test_a_changed_audit_log_is_an_integrity_failure(state, sql):
    add_fact(state)
    tamper(state, sql)
    ran = wised(state, "audit", "verify")
    assert (ran.code, ran.out) == (9, "")


def test_the_newest_events_are_listed_in_their_order(state):
    add_fact(state)
    found = wised(state, "audit", "list", "--limit", "2", "--json").json["events"]
    assert [(e["seq"], e["action"]) for e in found] == [(2, "fact.receive"), (3, "fact.hold")]
    assert wised(state, "audit", "list", "--limit", "1").rows[1][3:5] == ["fact.hold", "fact:1"]


def test_config_show_says_which_values_the_file_gives(state):
    state.config_file.write_text(
        '[model]\nname = "demo"\n[embedding]\nname = "x"\n'
        '[relations.capital]\nprompts = ["The capital of {subject} is"]\n',
        "utf-8",
    )
    rows = wised(state, "config", "show").rows
    assert ["model.name", '"demo"', "config.toml"] in rows
    assert ["model.device", '"auto"', "default"] in rows
    assert ["relations.capital.single_valued", "true", "default"] in rows
    settings = wised(state, "config", "show", "--json").json["settings"]
    assert {"key": "gate.min_reliability", "value": 0.98, "from": "default"} in settings


def test_a_backup_is_a_whole_state_database(state, tmp_path):
    add_fact(state)
    copy = tmp_path / "copy"
    copy.mkdir()
    assert wised(state, "db", "backup", str(copy / "wised.db")).code == 0
    assert sorted(path.name for path in copy.iterdir()) == ["wised.db"]
    assert (copy / "wised.db").stat().st_mode & 0o777 == 0o600
    assert wised(State(copy), "fact", "list", "--json").json["facts"][0]["subject"] == "Chad"
    assert wised(State(copy), "audit", "verify").code == 0


def test_a_backup_overwrites_nothing(state, tmp_path):
    file = tmp_path / "precious"
    file.write_text("x")
    assert wised(state, "db", "backup", str(file)).code == 4
    assert file.read_text() == "x"


def test_a_backup_where_nothing_can_be_written_fails(state, tmp_path):
    assert wised(state, "db", "backup", str(tmp_path / "no folder" / "x.db")).code == 1


def test_a_dry_run_of_a_backup_writes_no_file(state, tmp_path):
    before = dump(state)
    ran = wised(state, "db", "backup", str(tmp_path / "x.db"), "--dry-run")
    assert ran.rows == [[str(tmp_path / "x.db"), "would be written"]]
    assert not (tmp_path / "x.db").exists()
    assert dump(state) == before


def test_events_of_one_thing_are_listed(state):
    add_fact(state)
    add_fact(state, "Mali")
    found = wised(state, "audit", "list", "--subject", "fact:2", "--json").json["events"]
    assert [e["action"] for e in found] == ["fact.receive", "fact.hold"]


def test_an_export_has_all_that_proves_the_chain(state):
    """The chain by its definition: sha256 over the event with the hash before it, sorted JSON."""
    add_fact(state, "Perú\u2028")
    lines = wised(state, "audit", "export").out.splitlines()
    before = "0" * 64
    for seq, line in enumerate(lines, 1):
        event = json.loads(line)
        assert (event.pop("seq"), event["previous_hash"]) == (seq, before)
        before = event.pop("hash")
        event["data"] = json.dumps(event["data"], sort_keys=True, ensure_ascii=False)
        text = json.dumps(event, sort_keys=True, ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == before
    assert len(lines) == 3
    document = wised(state, "audit", "export", "--json").json
    assert document["events"] == [json.loads(line) for line in lines]


def test_an_export_can_begin_at_a_time(state):
    add_fact(state, at=NOW - timedelta(days=2))
    add_fact(state, "Mali", at=NOW)
    lines = wised(state, "audit", "export", "--since", NOW.date().isoformat()).out.splitlines()
    assert {json.loads(line)["subject"] for line in lines} == {"release:0", "fact:2"}
    assert wised(state, "audit", "export", "--since", "soon").code == 2


def test_a_sound_database_is_said_to_be(state):
    add_fact(state)
    for also in ([], ["--full"]):
        found = wised(state, "db", "check", "--json", *also).json
        assert (found["result"], found["events"]) == ("intact", 3)
        assert found["bytes"] > found["unused_bytes"] >= 0


def test_a_check_lists_what_must_always_hold_and_does_not(state):
    fact = add_fact(state)
    with state.store() as store, store.write():
        store.connection.execute("UPDATE fact SET state = 'promoted'")
    ran = wised(state, "db", "check")
    assert (ran.code, ran.out) == (9, "")
    assert f"fact {fact} is promoted, and the promoted release does not hold it" in ran.err
    assert f"fact {fact} is promoted, and the audit log says pending" in ran.err
    assert "wised run --once" in ran.err
    assert wised(state, "db", "check", "--json").code == 9


def test_two_facts_whose_names_became_one_are_no_damage_and_two_of_one_name_are(state):
    edited = ("approve", "batch", "edit", "verify")
    burma = add_fact(state, "Burma", "Rangoon", events=edited)
    myanmar = add_fact(state, "Myanmar", "Naypyidaw", events=edited)
    add_release(state, 1, (burma, myanmar))
    with state.store() as store:
        assert keys.renew(store, {"Myanmar": ["Burma"]}, NOW).disputed == 1
    assert wised(state, "db", "check").code == 0
    with state.store() as store, store.write():
        store.connection.execute("UPDATE fact SET subject = 'MYANMAR'")
    ran = wised(state, "db", "check")
    assert ran.code == 9
    assert "the promoted release holds two facts of one slot" in ran.err


def test_what_must_always_hold_is_not_looked_at_while_a_daemon_is_at_work(state):
    assert wised(state, "db", "check", "--json").json["invariants_hold"] is True
    add_fact(state)
    with state.store() as store, store.write():
        store.connection.execute("UPDATE fact SET state = 'promoted'")
    with state.lock():
        assert wised(state, "db", "check", "--json").json["invariants_hold"] is None
        assert ["invariants", "not looked at, a daemon runs"] in wised(state, "db", "check").rows


def test_a_broken_index_is_found_by_a_full_check(state):
    """An index that has lost a row, as a bad disk would leave it."""
    add_fact(state)
    raw = sqlite3.connect(state.folder / "wised.db", isolation_level=None)
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute(
        "UPDATE sqlite_schema SET sql = sql || ' WHERE state = ''nowhere''' "
        "WHERE name = 'fact_by_state'"
    )
    raw.close()
    assert wised(state, "db", "check", "--full").code == 9


def test_a_vacuum_gives_space_back_and_says_so(state):
    with state.store() as store:
        store.connection.execute("CREATE TABLE big (text TEXT)")
        store.connection.execute("INSERT INTO big VALUES (zeroblob(3000000))")
        store.connection.execute("DROP TABLE big")
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = state.folder / "wised.db"
    before = file.stat().st_size
    assert wised(state, "db", "check", "--json").json["unused_bytes"] > 2_900_000
    assert wised(state, "db", "vacuum", "--dry-run").code == 0
    assert file.stat().st_size == before
    result = wised(state, "db", "vacuum", "--json").json["results"][0]["result"]
    freed = before - file.stat().st_size
    assert freed > 2_900_000
    assert result == f"{freed} bytes given back"
    assert wised(state, "audit", "verify").code == 0


def test_a_damaged_copy_is_not_taken_for_a_backup(state, tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.store.health.page_problems", lambda *any, **also: ["page 7"])
    ran = wised(state, "db", "backup", str(tmp_path / "x.db"))
    assert ran.code == 9
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_config_check_lists_every_problem_and_path_names_the_file(state):
    assert wised(state, "config", "check").rows[0][1] == "good"
    assert wised(state, "config", "path").out == f"{state.config_file}\n"
    state.config_file.write_text('[model]\nname = 1\nsize = "big"\n', "utf-8")
    ran = wised(state, "config", "check")
    assert ran.code == 2
    assert "model.name" in ran.err
    assert "model.size" in ran.err
    assert wised(state, "config", "path").code == 0
