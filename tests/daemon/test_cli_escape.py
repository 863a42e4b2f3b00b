"""Stored text comes from strangers: no command may let it steer the terminal or hide."""

import inspect
import json
import re
import sys
import unicodedata
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pytest
from cli_commands import (
    CALLS,
    CHANGES,
    LEAVES,
    READS,
    SIGNALS,
    AnsweringWorker,
    call,
    copied,
    everything,
    options,
)
from cli_terminal import terminal
from cli_world import NOW, add_fact, add_source, new_state, wised

from daemon.child import Worker

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x85\x7f\x00\x08 "
    "\u202egnp.exe\u2066\u200b\u2060\ufeff\u2028 [red]markup[/red] :boom: \r\nfact\tforged"
)
PLAIN = "[red]markup[/red] :boom:"
#: reads that have nothing of a stranger's to show
OURS = {
    ("version",),
    ("completion",),
    ("help", "exit-codes"),
    ("wait",),
    ("audit", "verify"),
    ("release", "verify"),
    ("config", "show"),
    ("config", "check"),
    ("config", "path"),
    ("db", "check"),
    ("doctor",),
}
#: a reader of sources has taken controls out of texts, or cut them, before there is a fact of them
CLEANED = {("source", "test")}
TYPED = HOSTILE.replace("\0", "")
#: rows of a log, each with strangers' text in another place; a NUL makes any row a dead letter
ROWS = [
    {"subject": TYPED, "relation": "capital", "object": TYPED},
    {"subject": "Mali", "relation": TYPED, "object": "Kayes"},
    {"prompt": TYPED, "right": TYPED, "wrong": TYPED},
    {TYPED: TYPED},
    {"prompt": HOSTILE, "right": HOSTILE},
]
LOG = "".join(f"{json.dumps(row)}\n{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS)
LOG += f"raw {TYPED}\n"


def dangerous(text: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A state in which every text that a stranger can bring is hostile."""
    made = everything(tmp_path_factory.mktemp("escape"), HOSTILE)
    with made.store(actor=HOSTILE) as store, store.write():
        store.transition("release", 1, "prune", NOW, HOSTILE)
        store.connection.execute("UPDATE release SET reason = ?", (HOSTILE,))
        measures = json.dumps({HOSTILE: {"right": 1, "asked": 2}})
        store.connection.execute("UPDATE release SET measures = ?", (measures,))
    line = json.dumps({"event": HOSTILE, HOSTILE: HOSTILE}, ensure_ascii=False)
    log = f"{line}\nraw {HOSTILE}\n"
    (made.logs / "wised.jsonl").write_text(log, "utf-8", newline="")
    return made


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    monkeypatch.setattr("daemon.child.Worker", AnsweringWorker)


@pytest.fixture
def state(base, tmp_path):
    return copied(base, tmp_path)


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_text_for_people_is_harmless(state, tmp_path, words):
    ran = wised(state, *call(words, tmp_path, LOG))
    assert ran.code == (6 if words == ("doctor",) else 0)
    assert dangerous(ran.out + ran.err) == set()
    if words not in OURS:
        assert PLAIN in ran.out
        assert "\\x1b" in ran.out or "\\u001b" in ran.out
    assert not any(line.startswith("fact\tforged") for line in ran.out.splitlines()[1:])


@pytest.mark.parametrize("words", sorted(set(READS) - {("completion",)}), ids=" ".join)
def test_json_is_harmless_too_and_still_says_the_same(state, tmp_path, words):
    ran = wised(state, *call(words, tmp_path, LOG), "--json")
    assert dangerous(ran.out + ran.err) == set()
    if words in CLEANED:
        assert any(PLAIN in text for text in texts(ran.json))
    elif words not in OURS:
        assert HOSTILE in texts(ran.json)


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_what_a_change_tells_is_harmless(state, tmp_path, words):
    for also in (["--dry-run"], []):
        ran = wised(state, *call(words, tmp_path, LOG), *also)
        assert ran.code == (10 if words == ("review",) else 0)
        assert dangerous(ran.out + ran.err) == set()


def test_each_command_but_those_that_never_end_was_tried():
    assert set(READS) | set(CHANGES) | SIGNALS == set(CALLS)


def texts(value: object) -> set[str]:
    """Every text in a JSON document, keys and texts of JSON within texts too."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*(texts(v) for pair in value.items() for v in pair))
    return set().union(*map(texts, value)) if isinstance(value, list) else set()


def test_what_the_operator_typed_is_harmless_in_an_error(state):
    for command in (
        ["source", "show", TYPED],
        ["fact", "show", TYPED],
        ["review", "--state", TYPED],
    ):
        ran = wised(state, *command)
        assert ran.code in (2, 3)
        assert dangerous(ran.err) == set()
        assert dangerous(wised(state, *command, "--json").err) == set()


DRY = "--dry-run"
#: the commands that take a text, with one that is hostile
TYPING = {
    ("ask",): [TYPED, "--explain"],
    ("audit", "export"): ["--since", TYPED],
    ("audit", "list"): ["--subject", TYPED],
    ("db", "backup"): [TYPED, DRY],
    ("db", "vacuum"): ["--reason", TYPED, DRY],
    ("fact", "add"): [TYPED, "capital", TYPED, DRY],
    ("fact", "approve"): ["4", "--reason", TYPED, DRY],
    ("fact", "list"): ["--subject", TYPED],
    ("fact", "quarantine"): ["4", "--reason", TYPED, DRY],
    ("fact", "reject"): ["4", "--reason", TYPED, DRY],
    ("fact", "requeue"): ["5", "--reason", TYPED, DRY],
    ("fact", "retract"): ["1", "--reason", TYPED, DRY],
    ("fact", "show"): [TYPED],
    ("init",): [TYPED, DRY],
    ("logs",): ["--since", TYPED],
    ("metrics",): ["--textfile", TYPED, DRY],
    ("pause",): ["promote", "--reason", TYPED, DRY],
    ("release", "approve"): ["4", "--reason", TYPED, DRY],
    ("release", "diff"): ["0", TYPED],
    ("release", "pin"): [TYPED],
    ("release", "promote"): ["0", "--reason", TYPED, DRY],
    ("release", "prune"): ["--reason", TYPED, DRY],
    ("release", "show"): [TYPED],
    ("release", "unpin"): [TYPED],
    ("release", "verify"): [TYPED],
    ("resume",): ["edit", "--reason", TYPED, DRY],
    ("review",): ["--source", TYPED],
    ("rollback",): ["--reason", TYPED, DRY],
    ("run",): ["--once", "--stages", TYPED],
    ("source", "add"): ["log", TYPED, "--name", TYPED, DRY],
    ("source", "pause"): ["world", "--reason", TYPED, DRY],
    ("source", "remove"): ["world", "--reason", TYPED, DRY],
    ("source", "resume"): [TYPED, DRY],
    ("source", "set-url"): ["world", TYPED, DRY],
    ("source", "show"): [TYPED],
    ("source", "test"): [TYPED],
    ("wait",): [TYPED],
}
#: it starts a world of its own, and shows only what stands in the data
UNTRIED = {("demo",)}
TEXTS = (str, Path, list[str])


def takes_text(words: tuple[str, ...]) -> bool:
    hints = get_type_hints(inspect.unwrap(LEAVES[words].callback))
    del hints["return"]
    return any(hint in (text, text | None) for hint in hints.values() for text in TEXTS)


def test_every_command_that_takes_a_text_is_given_a_hostile_one():
    assert {words for words in LEAVES if takes_text(words)} == set(TYPING) | UNTRIED


@pytest.mark.parametrize("words", TYPING, ids=" ".join)
def test_no_text_that_was_typed_can_move_the_terminal(state, words):
    for more in ([], ["--json"]) if "--json" in options(words) else ([],):
        ran = wised(state, *words, *more, *TYPING[words])
        assert ran.code in (0, 1, 2, 3, 4, 5, 7, 9, 10)
        assert dangerous(ran.out + ran.err) == set()
        assert ran.out + ran.err != ""


def test_a_review_shows_hostile_text_harmlessly(state):
    with terminal("-C", str(state.folder), "review") as screen:
        for key in ("e", "?", "r"):
            screen.expect("e[x]it")
            screen.type(key)
        screen.expect("why reject?")
        screen.type("so\n")
        assert screen.end() == 0
    assert dangerous(screen.all.replace("\r\n", "\n")) == set()
    assert screen.all.count(PLAIN) > 5


def test_the_live_screen_shows_hostile_text_harmlessly(state):
    work = {"stage": HOSTILE, "since": NOW.isoformat(), "doing": HOSTILE, "done": 1, "total": 9}
    said = {"at": NOW.isoformat(), "daemon": {"trouble": [HOSTILE]}, "work": work}
    state.status_file.write_text(json.dumps(said))
    with state.lock(), terminal("-C", str(state.folder), "status", "--watch") as screen:
        for text in ("hold on ingest", "doing", "failing, 4 in a row", "last gate"):
            screen.expect(text)
        screen.interrupt()
        assert screen.end() == 0
    # rich's own sequences begin with ESC [ and end with these letters
    plain = re.sub(r"\x1b\[\??[0-9;]*[mHJKhl]", "", screen.all).replace("\r\n", "\n")
    assert dangerous(plain) <= {"\r"}
    for sequence in ("\x1b[2J\x1b]", "\x1b]", "\x9b", "\u202e", "\x07"):
        assert sequence not in screen.all
    assert screen.all.count("[red]markup") > 3


def test_a_run_on_hostile_sources_writes_a_harmless_log_and_status(tmp_path):
    made = new_state(tmp_path)
    folder = tmp_path / TYPED.replace("/", "_")
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": HOSTILE, "right": HOSTILE}) + "\nx\n")
    for name, location in (("one", folder / "rows.jsonl"), ("two", folder / "none")):
        add_source(made, name, kind="log", location=str(location), last_error=HOSTILE)
    ran = wised(made, "run", "--once", "--stages", "ingest")
    assert ran.code == 0
    log = (made.logs / "wised.jsonl").read_text("utf-8")
    assert '"event": "source.failed"' in log
    lines = [json.loads(line) for line in log.splitlines()]
    written = {text for line in lines for text in texts(line)}
    assert {text for text in written if dangerous(text) or "\n" in text or "\t" in text} == set()
    for text in (ran.out + ran.err, log, made.status_file.read_text("utf-8")):
        assert dangerous(text) == set()


SEND = """
import sys
def send(**reply):
    sys.stdout.write(json.dumps({"reply": reply}) + "\\n")
    sys.stdout.flush()
sys.stdin.readline()
send(kind="progress", stage="at work", done=0, total=1)
"""
ONE_LINE = re.sub(r"[\r\n\x85\u2028]", "", HOSTILE)
#: programs in the worker's place; what they say of it stands in TEXT
FAILING = {
    "it raises": "raise RuntimeError(TEXT)",
    "it answers so": "send(kind='failed', error=TEXT, message=TEXT, hint=TEXT, is_last=True)",
    "it writes no reply": "print(TEXT, flush=True); sys.stdin.readline()",
}


@pytest.mark.parametrize("text", [HOSTILE, ONE_LINE], ids=["of several lines", "of one line"])
@pytest.mark.parametrize("program", FAILING.values(), ids=FAILING)
def test_what_a_failing_worker_says_is_harmless_wherever_it_shows(
    tmp_path, monkeypatch, program, text
):
    made = new_state(tmp_path)
    add_fact(made, events=("approve",))
    script = f"import json\nTEXT = json.loads({json.dumps(text)!r})\n{SEND}{program}"
    place = partial(Worker, program=(sys.executable, "-c", script))
    monkeypatch.setattr("daemon.service.Worker", place)
    ran = wised(made, "run", "--once", "--stages", "edit")
    assert ran.code == 0
    log = (made.logs / "wised.jsonl").read_text("utf-8")
    assert '"event": "release.failed"' in log
    shown = [ran.out + ran.err, log, made.status_file.read_text("utf-8"), *told_of(made, WORK)]
    assert [dangerous(one) for one in shown] == [set()] * len(shown)
    assert sum("[red]mark" in one or "forged" in one for one in shown) > 8


def test_what_a_bug_says_is_harmless_with_its_traceback(tmp_path, monkeypatch):
    def breaks(*_):
        raise RuntimeError(HOSTILE)

    made = new_state(tmp_path)
    add_source(made)
    monkeypatch.setattr("daemon.polling.fetch", breaks)
    ran = wised(made, "run", "--once", "--stages", "ingest")
    log = (made.logs / "wised.jsonl").read_text("utf-8")
    assert '"event": "poll.broke_off"' in log
    shown = [ran.out + ran.err, log, *told_of(made, [*WORK, ["source", "show", "world"]])]
    assert [dangerous(one) for one in shown] == [set()] * len(shown)
    assert PLAIN in log
    assert len(wised(made, "logs").out.splitlines()) == len(log.splitlines())


#: the commands that show how the work goes
WORK = [
    *(["status"], ["logs"], ["audit", "list"], ["audit", "export"], ["fact", "list"]),
    *(["release", "list"], ["release", "show", "1"], ["fact", "show", "1"]),
]


def told_of(state, commands):
    """What commands say, for people and in JSON."""
    ran = [wised(state, *words, *also) for words in commands for also in ((), ("--json",))]
    return [one.out + one.err for one in ran]
