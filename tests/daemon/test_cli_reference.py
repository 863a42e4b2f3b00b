"""docs/cli.md says what the commands are."""

import re
import shutil
from pathlib import Path

import pytest
from cli_commands import LEAVES, copied, everything
from cli_world import wised

from daemon.cli import reference
from daemon.errors import EXIT_CODES
from wise import manifest

PAGE = reference.PAGE.read_text("utf-8")


def test_the_page_is_of_the_commands_as_they_are():
    """`python -m daemon.cli.reference` makes it so."""
    assert reference.page(PAGE) == PAGE


def test_every_command_has_a_section():
    assert re.findall(r"^### wised (.+)$", PAGE, re.M) == [" ".join(words) for words in LEAVES]


def test_the_exit_codes_are_those_that_there_are():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.M)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES
    assert set(reference.ALSO) <= {" ".join(words) for words in LEAVES}
    assert {code for codes in reference.ALSO.values() for code in codes} < set(EXIT_CODES)


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="reference"):
        reference.page("# The command line\n")


#: the exit codes that the page says, each with command lines of which the last ends with it
PRUNE, BACK = ["release", "prune", "--keep", "0"], ["rollback"]
PRODUCED = {
    ("reload", 7): [["reload"]],
    ("stop", 7): [["stop"]],
    ("status", 7): [["status", "--check"]],
    ("source add", 4): [["source", "add", "feed", "https://example.org/x", "--name", "world"]],
    ("source add", 5): [["source", "add", "feed", "https://example.org/x", "--name", "operator"]],
    ("source pause", 4): [["source", "remove", "world"], ["source", "pause", "world"]],
    ("source pause", 5): [["source", "pause", "operator"]],
    ("source resume", 4): [["source", "remove", "world"], ["source", "resume", "world"]],
    ("source resume", 5): [["source", "resume", "operator"]],
    ("source set-url", 4): [["source", "set-url", "away"]],
    ("source remove", 5): [["source", "remove", "operator"]],
    ("fact approve", 4): [["fact", "approve", "3"]],
    ("fact reject", 4): [["fact", "reject", "1"]],
    ("fact quarantine", 4): [["fact", "quarantine", "1"]],
    ("fact requeue", 4): [["fact", "requeue", "4"]],
    ("fact retract", 4): [["fact", "retract", "4"]],
    ("review", 10): [["review"]],
    ("release verify", 4): [PRUNE, ["release", "verify", "1"]],
    ("release approve", 4): [["release", "approve", "1"]],
    ("release promote", 4): [PRUNE, ["release", "promote", "1"]],
    ("release promote", 5): [BACK, ["release", "promote", "3"]],
    ("release pin", 4): [PRUNE, ["release", "pin", "1"]],
    ("rollback", 4): [PRUNE, ["rollback", "--to", "1"]],
    ("rollback", 5): [BACK, ["rollback", "--to", "3"]],
    ("ask", 4): [PRUNE, ["ask", "What?", "--release", "1"]],
    ("wait", 6): [["wait", "3", "--for", "refused"]],
    ("wait", 8): [["wait", "9", "--timeout", "0"]],
    ("doctor", 6): [["doctor"]],
    ("db backup", 4): [["db", "backup", "copy"], ["db", "backup", "copy"]],
}
#: produced by tests of their own: a network file system, a held lock, a running daemon, a demo
#: that fails, a daemon on another machine and the paper's memory (below), what takes too long
ELSEWHERE = {
    ("run", 5),
    ("run", 7),
    ("run", 143),
    ("reload", 4),
    ("stop", 4),
    ("stop", 8),
    ("status", 6),
    ("ask", 8),
    ("demo", 4),
    ("demo", 6),
    ("fact retract", 5),
}
PAPER = Path(__file__).resolve().parents[1] / "wise" / "golden" / "paper"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("pair", PRODUCED, ids=str)
def test_a_command_ends_with_the_codes_that_the_page_says(base, tmp_path, pair):
    state = copied(base, tmp_path)
    *before, last = PRODUCED[pair]
    assert [wised(state, *line).code for line in before] == [0] * len(before)
    assert wised(state, *last).code == pair[1]


def test_each_code_that_the_page_says_is_produced():
    said = {(name, code) for name, codes in reference.ALSO.items() for code in codes}
    assert said == set(PRODUCED) | ELSEWHERE


def test_a_daemon_on_another_machine_is_not_stopped_from_here(base, tmp_path):
    state = copied(base, tmp_path)
    with state.lock():
        state.lock_file.write_text("pid 1 on elsewhere since today\n")
        ran = wised(state, "stop")
    assert ran.code == 4
    assert "log in to elsewhere" in ran.err


def test_a_fact_can_not_be_dropped_from_the_papers_memory_at_once(base, tmp_path):
    state = copied(base, tmp_path)
    folder = state.releases / "000003"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(PAPER / name, folder / name)
    (folder / manifest.NAME).unlink()
    digest = manifest.seal(folder, {"release": 3})
    with state.store() as store:
        store.db["release"].update(3, {"manifest_sha256": digest})
    ran = wised(state, "fact", "retract", "1", "--now")
    assert ran.code == 5
    assert "without --now" in ran.err
