"""Stored text comes from strangers: no command may let it steer the terminal or hide."""

import json
import unicodedata
from typing import ClassVar

import pytest
from cli_world import EDITED, NOW, add_entry, add_fact, add_release, add_source, new_state, wised
from test_cli_ask import FakeWorker
from test_cli_process import LEAVES

import daemon.cli.verification  # noqa: F401 - else it would keep the stand-in that a test puts in
from daemon.messages import Said
from daemon.store import timestamp

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x85\x7f\x00\x08 "
    "\u202egnp.exe\u2066\u200b\u2060\ufeff\u2028 [red]markup[/red] :boom: \r\nfact\tforged"
)
PLAIN = "[red]markup[/red] :boom:"
COMMANDS = [
    ["fact", "list"],
    ["fact", "show", "1"],
    ["source", "list"],
    ["source", "show", "bad"],
    ["release", "list"],
    ["release", "show", "1"],
    ["release", "diff", "0", "1"],
    ["status"],
    ["audit", "list"],
    ["logs"],
]


def dangerous(text: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if c not in "\n\t" and unicodedata.category(c) in kinds}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state in which every text that a stranger can bring is hostile."""
    made = new_state(tmp_path_factory.mktemp("escape"))
    source = add_source(
        made,
        "bad",
        kind="log",
        location=HOSTILE,
        failures=4,
        last_error=HOSTILE,
    )
    entry = add_entry(made, source, HOSTILE, HOSTILE)
    texts = {"relation": HOSTILE, "entry": entry, "quote": HOSTILE, "events": EDITED}
    fact = add_fact(made, HOSTILE, HOSTILE, **texts)
    add_release(made, 1, (fact,), measures=json.dumps({HOSTILE: {"right": 1, "asked": 2}}))
    with made.store(actor=HOSTILE) as store, store.write():
        store.transition("fact", fact, "retract", NOW, HOSTILE)
        store.transition("release", 0, "retain", NOW, HOSTILE)
        store.db["hold"].insert({"kind": "edit", "reason": HOSTILE, "since": timestamp(NOW)})
    line = json.dumps({"event": HOSTILE, HOSTILE: HOSTILE}, ensure_ascii=False)
    log = f"{line}\nraw {HOSTILE}\n"
    (made.logs / "wised.jsonl").write_text(log, "utf-8", newline="")
    return made


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_text_for_people_is_harmless(state, command):
    ran = wised(state, *command)
    assert ran.code == 0
    assert dangerous(ran.out + ran.err) == set()
    assert PLAIN in ran.out
    assert "\\x1b" in ran.out
    assert not any(line.startswith("fact\tforged") for line in ran.out.splitlines()[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_json_is_harmless_too_and_still_says_the_same(state, command):
    ran = wised(state, *command, "--json")
    assert dangerous(ran.out + ran.err) == set()
    assert HOSTILE in texts(ran.json)


def texts(value: object) -> set[str]:
    """Every text in a JSON document, keys and texts of JSON within texts too."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set().union(*(texts(v) for pair in value.items() for v in pair))
    return set().union(*map(texts, value)) if isinstance(value, list) else set()


def test_what_the_operator_typed_is_harmless_in_an_error(state):
    for command in (["source", "show", HOSTILE.replace("\0", "")], ["fact", "show", HOSTILE]):
        ran = wised(state, *command)
        assert ran.code in (2, 3)
        assert dangerous(ran.err) == set()
        assert dangerous(wised(state, *command, "--json").err) == set()


TYPED = HOSTILE.replace("\0", "")
DRY = "--dry-run"
#: every command, as one that prints or repeats what strangers and operators wrote
EVERY = {
    ("ask",): [TYPED, "--explain"],
    ("audit", "list"): [],
    ("audit", "verify"): [],
    ("config", "check"): [],
    ("config", "show"): [],
    ("db", "backup"): [TYPED, DRY],
    ("fact", "add"): [TYPED, "capital", TYPED, DRY],
    ("fact", "approve"): ["1", "--reason", TYPED, DRY],
    ("fact", "list"): ["--subject", TYPED],
    ("fact", "quarantine"): ["1", "--reason", TYPED, DRY],
    ("fact", "reject"): ["1", "--reason", TYPED, DRY],
    ("fact", "requeue"): ["1", "--reason", TYPED, DRY],
    ("fact", "retract"): ["2", "--reason", TYPED, DRY],
    ("fact", "show"): ["1"],
    ("init",): [TYPED, DRY],
    ("logs",): [],
    ("metrics",): [],
    ("pause",): ["promote", "--reason", TYPED, DRY],
    ("release", "diff"): ["0", "1"],
    ("reload",): [DRY],
    ("stop",): [DRY],
    ("release", "list"): [],
    ("release", "pin"): [TYPED],
    ("release", "promote"): ["0", "--reason", TYPED, DRY],
    ("release", "prune"): [DRY],
    ("release", "show"): ["1"],
    ("release", "unpin"): [TYPED],
    ("release", "verify"): ["1"],
    ("resume",): ["edit", DRY],
    ("rollback",): ["--reason", TYPED, DRY],
    ("run",): ["--once", "--stages", TYPED],
    ("source", "add"): ["log", TYPED, "--name", TYPED, DRY],
    ("source", "list"): [],
    ("source", "pause"): ["bad", "--reason", TYPED, DRY],
    ("source", "remove"): ["bad", "--reason", TYPED, DRY],
    ("source", "resume"): [TYPED, DRY],
    ("source", "set-url"): ["bad", TYPED, DRY],
    ("source", "show"): ["bad"],
    ("source", "test"): [TYPED],
    ("status",): [],
}


@pytest.fixture
def worker(monkeypatch):
    class Hostile(FakeWorker):
        asked: ClassVar[list] = []

    monkeypatch.setattr("daemon.child.Worker", Hostile)
    return Hostile


UNTRIED = {("demo",)}  # it starts a world of its own, and shows only what stands in the data


def test_every_command_is_tried():
    assert set(EVERY) | UNTRIED == set(LEAVES)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_no_command_can_move_the_terminal(state, worker, words):
    worker.said = Said(text=HOSTILE, bare=HOSTILE, fact=1, cosine=0.9, threshold=0.5, routed=True)
    options = {option for parameter in LEAVES[words].params for option in parameter.opts}
    for more in ([], ["--json"]) if "--json" in options else ([],):
        ran = wised(state, *words, *more, *EVERY[words])
        assert ran.code in (0, 1, 2, 3, 4, 5, 7, 9)
        assert dangerous(ran.out + ran.err) == set()
        assert ran.out + ran.err != ""


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
