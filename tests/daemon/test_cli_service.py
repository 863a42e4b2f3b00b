import json
import stat
import subprocess
import sys
import types

import pytest
from cli_world import NOW, Ran, add_source, dump, new_state, wised

from daemon import __version__, cli
from daemon.state import State, init


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def fake_module(monkeypatch, parent, name, run):
    """Stand in for a module that would start the daemon or train."""
    module = types.ModuleType(f"{parent.__name__}.{name}")
    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(parent, name, module, raising=False)


def test_init_makes_a_state_and_leaves_an_existing_one_alone(tmp_path, capsys):
    folder = tmp_path / "new"
    assert cli.run(["init", str(folder), "--dry-run"]) == 0
    assert not folder.exists()
    assert cli.run(["init", str(folder)]) == 0
    said = capsys.readouterr()
    assert "initialised" in said.out
    assert f"wised -C {folder} run" in said.err
    assert stat.S_IMODE((folder / "tmp").stat().st_mode) == 0o700
    config = folder / "config.toml"
    config.write_text(config.read_text("utf-8") + "\n# mine\n", "utf-8")
    before = dump(State(folder))
    assert cli.run(["init", str(folder)]) == 0
    assert "already_initialised" in capsys.readouterr().out
    assert config.read_text("utf-8").endswith("# mine\n")
    assert dump(State(folder)) == before


def test_run_hands_its_options_to_the_service(state, monkeypatch):
    calls = []

    def run(place, *, once, stages, allow_network_fs):
        calls.append((place, once, stages, allow_network_fs))
        return 0

    import daemon

    fake_module(monkeypatch, daemon, "service", run)
    assert wised(state, "run").code == 0
    assert wised(state, "run", "--once", "--stages", "ingest", "--allow-network-fs").code == 0
    assert calls == [
        (state, False, frozenset({"ingest", "edit"}), False),
        (state, True, frozenset({"ingest"}), True),
    ]


def test_run_refuses_an_unknown_stage(state):
    ran = wised(state, "run", "--stages", "ingest,dance")
    assert ran.code == 2
    assert "'dance'" in ran.err


def test_only_one_daemon_runs_on_a_state(state):
    with state.lock():
        assert wised(state, "run", "--once", "--stages", "ingest").code == 7


def test_demo_hands_its_options_to_the_scenario(monkeypatch, tmp_path):
    calls = []

    def run(folder, json_only):
        calls.append((folder, json_only))
        return 6

    import demo

    fake_module(monkeypatch, demo, "scenario", run)
    assert cli.run(["demo"]) == 6
    assert cli.run(["demo", "--keep", str(tmp_path), "--json"]) == 6
    assert calls == [(None, False), (tmp_path, True)]


def test_work_is_paused_and_resumed_and_repeats_do_no_harm(state):
    assert wised(state, "pause", "edit", "--reason", "new disk").rows[0] == ["edit", "paused"]
    assert wised(state, "pause", "edit", "--reason", "other").rows == [["edit", "already_paused"]]
    assert wised(state, "status", "--json").json["holds"] == {"edit": "new disk"}
    assert wised(state, "resume", "edit").rows[0] == ["edit", "resumed"]
    assert wised(state, "resume", "edit").rows == [["edit", "already_resumed"]]
    assert wised(state, "status", "--json").json["holds"] == {}


def test_only_known_work_is_paused(state):
    assert wised(state, "pause", "everything").code == 2


def test_a_dry_run_of_pausing_and_resuming_changes_nothing(state):
    before = dump(state)
    ran = wised(state, "pause", "ingest", "--dry-run")
    assert ran.rows == [["ingest", "paused"], ["  hold.set hold:ingest (paused by hand)"]]
    assert dump(state) == before
    wised(state, "pause", "ingest")
    before = dump(state)
    assert "hold.lift" in wised(state, "resume", "ingest", "--dry-run").out
    assert dump(state) == before


def test_logs_shows_the_newest_lines(state):
    lines = [
        json.dumps({"at": f"t{n}", "level": "info", "event": "x.y", "n": n}) for n in range(30)
    ]
    (state.logs / "wised.jsonl").write_text("\n".join([*lines, "no json", ""]), "utf-8")
    ran = wised(state, "logs", "-n", "3")
    assert ran.out == "t28 info x.y n=28\nt29 info x.y n=29\nno json\n"
    found = wised(state, "logs", "-n", "2", "--json").json["lines"]
    assert found == [json.loads(lines[29]), {"text": "no json"}]


def test_logs_of_a_daemon_that_never_ran_are_empty(state):
    ran = wised(state, "logs")
    assert (ran.code, ran.out) == (0, "")
    assert "nothing is logged yet" in ran.err


def test_every_command_needs_a_state_folder(tmp_path):
    nowhere = State(tmp_path / "nowhere")
    for command in (["status"], ["run"], ["logs"], ["fact", "list"], ["rollback"], ["ask", "x"]):
        ran = wised(nowhere, *command)
        assert ran.code == 3, command
        assert "wised init DIR" in ran.err
    assert not nowhere.folder.exists()


def test_the_state_folder_comes_from_the_option_the_environment_or_here(state, monkeypatch, capsys):
    assert cli.run(["status"]) == 0  # ./state
    monkeypatch.setenv("WISED_STATE", str(state.folder / "not there"))
    assert cli.run(["status"]) == 3
    assert cli.run(["-C", str(state.folder), "status"]) == 0
    capsys.readouterr()


def test_version_and_help_need_no_state(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"wised {__version__}\n"
    assert cli.run([]) == 0
    assert "Exit codes:" in capsys.readouterr().out


def failed(state, *arguments) -> Ran:
    ran = wised(state, *arguments)
    assert ran.out == ""
    return ran


def test_an_error_says_what_is_wrong_and_what_to_try(state):
    ran = failed(state, "fact", "show", "7")
    assert ran.err == "Error: no fact 7\nTry: wised fact list shows them\n"


@pytest.mark.parametrize(
    "words",
    [
        ("source", "show", "https://u:hunter2@example.org/x?token=hunter2"),
        ("source", "add", "https://u:hunter2@example.org/x", "feed"),
    ],
)
def test_an_error_does_not_repeat_the_password_of_a_url(state, words):
    for line in (words, (*words, "--json")):
        ran = wised(state, *line)
        assert ran.code in (2, 3)
        assert "example.org" in ran.err and "hunter2" not in ran.err + ran.out


def test_the_configuration_is_shown_without_the_secrets_in_it(state):
    command = (
        """["curl", "-H", "Authorization: Bearer hunter2hunter2", "https://u:hunter2@host/"]"""
    )
    text = state.config_file.read_text("utf-8")
    text = text.replace("[probation]\n", f"[probation]\ncommand = {command}\n")
    state.config_file.write_text(text, "utf-8")
    for line in (("config", "show"), ("config", "show", "--json")):
        ran = wised(state, *line)
        assert ran.code == 0
        assert "curl" in ran.out and "hunter2" not in ran.out


def test_a_daemon_that_does_not_end_in_time_is_a_timeout(state):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    script = f"{deaf}; time.sleep(60)"
    sleeper = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        sleeper.stdout.readline()
        with state.lock():
            host = state.lock_file.read_text().split(" on ")[1]
            state.lock_file.write_text(f"pid {sleeper.pid} on {host}")
            ran = wised(state, "stop", "--timeout", "0")
    finally:
        sleeper.kill()
        sleeper.communicate()
    assert ran.code == 8
    assert "still runs" in ran.err


def test_a_demo_in_a_folder_that_holds_a_state_is_a_conflict(tmp_path):
    init(tmp_path / "state", NOW)
    assert cli.run(["demo", "--keep", str(tmp_path)]) == 4


def test_with_json_an_error_is_one_object_on_standard_error(state):
    ran = failed(state, "fact", "show", "7", "--json")
    assert json.loads(ran.err) == {
        "error": {
            "code": "not_found",
            "message": "no fact 7",
            "hint": "wised fact list shows them",
            "exit": 3,
        }
    }


def test_a_bad_option_is_a_usage_error_also_in_json(state):
    ran = failed(state, "fact", "list", "--colour", "--json")
    assert ran.code == 2
    assert json.loads(ran.err)["error"]["code"] == "usage"
    assert failed(state, "fact", "list", "--limit", "many").code == 2


def test_a_bad_configuration_is_reported_with_all_its_problems(state):
    state.config_file.write_text('[model]\nname = 1\nsize = "big"\n', "utf-8")
    ran = failed(state, "config", "show")
    assert ran.code == 2
    assert "model.name" in ran.err
    assert "model.size" in ran.err


def test_a_damaged_database_is_an_integrity_failure(state):
    (state.folder / "wised.db").write_bytes(b"not a database" * 400)
    for leftover in ("wised.db-wal", "wised.db-shm"):
        (state.folder / leftover).unlink(missing_ok=True)
    assert failed(state, "status").code == 9


def test_a_bug_is_not_dressed_up_as_an_expected_error(state, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("daemon.status.read", broken)
    with pytest.raises(ZeroDivisionError):
        wised(state, "status")


def test_an_interrupt_ends_with_130(state, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("daemon.status.read", interrupted)
    assert wised(state, "status").code == 130


def test_reading_changes_no_row(state):
    add_source(state)
    before = dump(state)
    commands = (
        ["status"],
        ["source", "list"],
        ["fact", "list"],
        ["release", "list"],
        ["audit", "list"],
        ["config", "show"],
    )
    for command in commands:
        assert wised(state, *command, "--json").json["schema_version"] == 1
    assert dump(state) == before
