import sqlite3

import pytest
from cli_world import add_fact, dump, new_state, wised

from daemon.state import State


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
