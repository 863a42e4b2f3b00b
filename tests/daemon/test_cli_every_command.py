"""What holds for every command, found by walking the grammar: a new one can't be forgotten."""

import json
import os
import re
import subprocess
import sys

import pytest
from cli_commands import (
    CALLS,
    CHANGES,
    LEAVES,
    LONG,
    READS,
    AnsweringWorker,
    call,
    copied,
    everything,
    fingerprint,
    options,
)
from cli_terminal import MAIN, ROOT
from cli_world import Ran, dump, wised

from daemon import cli
from daemon.errors import EXIT_CODES
from daemon.state import State

ASKS_A_PERSON = {("review",)}
#: they write beside the state, not to it
BESIDE = {("init",), ("db", "backup"), ("metrics",)}
NEEDS_NO_STATE = {("version",), ("help", "exit-codes"), ("completion",), ("init",)}
REASON = "because of paragraph 7"
#: changes that are new ones each time, with the exit code of the second time and why
ANEW = {
    ("db", "backup"): (4, "a backup is never written over"),
    ("db", "vacuum"): (0, "there may be free pages again"),
    ("metrics",): (0, "the counts are others by then"),
    ("release", "prune"): (0, "it names what it removes, which now is nothing"),
    ("rollback",): (0, "it goes back by one more release"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("base"))


@pytest.fixture
def state(base, tmp_path):
    return copied(base, tmp_path)


class Forbidden:
    """Standard input that must not be read; it is no terminal."""

    def isatty(self):
        return False

    def __getattr__(self, name):
        raise AssertionError(f"standard input was used: {name}")


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch):
    monkeypatch.setattr("sys.stdin", Forbidden())
    monkeypatch.setattr("daemon.child.Worker", AnsweringWorker)


def test_every_command_is_called_here():
    assert set(CALLS) | LONG == set(LEAVES)


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_a_read_prints_one_document_and_changes_nothing(state, tmp_path, words):
    before = fingerprint(state)
    plain = wised(state, *call(words, tmp_path))
    assert plain.out
    if words != ("completion",):
        ran = wised(state, *call(words, tmp_path), "--json")
        assert ran.code == plain.code
        assert ran.json["schema_version"] == 1
    assert fingerprint(state) == before
    # no release in this state has the configuration that says which matrix it was made for
    assert plain.code == (6 if words == ("doctor",) else 0)


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_a_dry_run_changes_nothing_and_the_change_itself_does(state, tmp_path, words):
    line = call(words, tmp_path)
    before = fingerprint(state)
    rehearsed = wised(state, *line, "--dry-run")
    assert fingerprint(state) == before
    assert not (tmp_path / "new").exists()
    if words in ASKS_A_PERSON:
        assert rehearsed.code == 10
        return
    assert rehearsed.code == 0
    assert rehearsed.out or rehearsed.err
    assert wised(state, *line).code == 0
    changed = (tmp_path / "new").exists() if words in BESIDE else dump(state) != before[1]
    assert changed


@pytest.mark.parametrize("words", sorted(set(CHANGES) - ASKS_A_PERSON), ids=" ".join)
def test_a_change_tells_what_it_did_in_one_document(state, tmp_path, words):
    line = call(words, tmp_path)
    rehearsed = wised(state, *line, "--dry-run", "--json").json
    done = wised(state, *line, "--json").json
    assert (rehearsed["schema_version"], done["schema_version"]) == (1, 1)
    assert (rehearsed["dry_run"], done["dry_run"]) == (True, False)


@pytest.mark.parametrize("words", sorted(set(CHANGES) - ASKS_A_PERSON - BESIDE), ids=" ".join)
def test_the_reason_of_a_change_is_recorded(state, tmp_path, words):
    last = newest(state)
    assert wised(state, *call(words, tmp_path), "--reason", REASON).code == 0
    with state.store(read_only=True) as store:
        rows = store.rows("SELECT actor, data FROM event WHERE seq > ?", last)
    assert any(REASON in json.loads(row["data"]).get("reason", "") for row in rows)
    assert {row["actor"].partition(":")[0] for row in rows} == {"operator"}


@pytest.mark.parametrize("words", sorted(set(CHANGES) - ASKS_A_PERSON - set(ANEW)), ids=" ".join)
def test_a_change_that_is_made_already_says_so_and_does_nothing(state, tmp_path, words):
    line = call(words, tmp_path)
    assert not any(already(one) for one in wised(state, *line, "--json").json["results"])
    before = dump(state)  # the audit log too
    for also in (["--dry-run"], [], ["--reason", REASON] if "--reason" in options(words) else []):
        ran = wised(state, *line, "--json", *also)
        assert ran.code == 0
        assert ran.json["results"] != []
        assert all(already(one) for one in ran.json["results"])
        assert ran.json.get("changes", []) == []
        assert dump(state) == before


def already(result):
    return re.fullmatch("already_[a-z]+", result["result"]) is not None


@pytest.mark.parametrize("words", ANEW, ids=" ".join)
def test_a_change_that_is_a_new_one_each_time_never_says_already(state, tmp_path, words):
    assert words in CHANGES
    line = call(words, tmp_path)
    assert wised(state, *line, "--json").code == 0
    again = wised(state, *line, "--json")
    assert again.code == ANEW[words][0]
    assert "already_" not in again.out


def newest(state):
    with state.store(read_only=True) as store:
        return store.one("SELECT max(seq) AS seq FROM event")["seq"]


def test_every_change_takes_a_reason():
    assert {words for words in CHANGES if "--reason" not in options(words)} == BESIDE


@pytest.mark.parametrize("words", sorted(set(CALLS) - NEEDS_NO_STATE), ids=" ".join)
def test_an_error_leaves_standard_output_empty(tmp_path, words):
    nowhere = State(tmp_path / "nowhere")
    line = call(words, tmp_path)
    ran = wised(nowhere, *line)
    code = 10 if words in ASKS_A_PERSON else 3
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("Error: ")
    if "--json" in options(words):
        told = wised(nowhere, *line, "--json")
        assert (told.code, told.out) == (3, "")
        assert set(json.loads(told.err)["error"]) == {"code", "message", "hint", "exit"}
        assert json.loads(told.err)["error"]["exit"] == 3
    assert not nowhere.folder.exists()


def interrupted(*arguments):
    raise KeyboardInterrupt


def terminated(state: State, *arguments: str) -> Ran:
    """A command as a process that is ended with SIGTERM once it has said something."""
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "-C", str(state.folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        first = process.stdout.readline()
        process.terminate()
        rest, errors = process.communicate(timeout=60)
    return Ran(process.returncode, first + rest, errors)


def produced(state: State, code: int, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """A command that ends with that exit code."""
    if code == 7:
        with state.lock():
            return wised(state, "run", "--once", "--stages", "ingest")
    if code == 6:
        with state.lock():
            return wised(state, "status", "--check")
    if code == 9:
        (state.releases / "000003" / "facts.jsonl").write_text("other")
        return wised(state, "release", "verify", "3")
    if code == 143:
        return terminated(state, "status", "--watch")
    if code == 130:
        monkeypatch.setattr("daemon.status.read", interrupted)
    lines = {
        0: ["status"],
        1: ["source", "test", "missing.jsonl"],
        2: ["fact", "list", "--state", "nowhere"],
        3: ["fact", "show", "99"],
        4: ["release", "approve", "1"],
        5: ["source", "pause", "operator"],
        8: ["wait", "5", "--timeout", "0"],
        10: ["review"],
        130: ["status"],
    }
    return wised(state, *lines[code])


@pytest.mark.parametrize("code", EXIT_CODES)
def test_every_exit_code_is_produced(state, monkeypatch, code):
    ran = produced(state, code, monkeypatch)
    assert ran.code == code
    assert bool(ran.err) == (code not in (0, 6, 130, 143))


def test_help_lists_the_exit_codes(capsys):
    assert cli.run(["help", "exit-codes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["exit_codes"]
    assert [one["code"] for one in listed] == [*range(11), 130, 143]
    assert cli.run(["help"]) == 0
    assert "release" in capsys.readouterr().out
