"""Every command that is registered, with arguments that work on one state that has all there is.

A new command has to be added to CALLS, or the tests that walk the grammar fail.
"""

import hashlib
import importlib
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from cli_world import EDITED, NOW, add_entry, add_fact, add_release, add_source, dump, new_state

from daemon.cli import app
from daemon.messages import Answers, Said
from daemon.state import State
from daemon.store import timestamp

#: they take the worker's class when they are imported, which must not be the one that stands for it
for _name in ("daemon.cli.verification", "daemon.rebuild", "daemon.service"):
    importlib.import_module(_name)


def _leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        yield from _leaves(child, (*words, name))


LEAVES = dict(_leaves(typer.main.get_command(app)))

#: arguments of each command on `everything`; NEW stands for a file that is not there yet
NEW, LOG = "NEW", "LOG"
CALLS: dict[tuple[str, ...], list[str]] = {
    ("init",): [NEW],
    ("reload",): [],
    ("stop",): [],
    ("status",): [],
    ("metrics",): ["--textfile", NEW],
    ("doctor",): [],
    ("pause",): ["edit"],
    ("resume",): ["ingest"],
    ("review",): [],
    ("rollback",): [],
    ("ask",): ["The capital of Chad is", "--explain"],
    ("wait",): ["3"],
    ("logs",): [],
    ("version",): [],
    ("completion",): ["bash"],
    ("help", "exit-codes"): [],
    ("source", "add"): ["log", LOG, "--name", "fresh"],
    ("source", "list"): [],
    ("source", "show"): ["world"],
    ("source", "test"): [LOG],
    ("source", "pause"): ["world"],
    ("source", "resume"): ["idle"],
    ("source", "set-url"): ["away", "https://example.org/new.atom"],
    ("source", "remove"): ["world"],
    ("fact", "list"): [],
    ("fact", "show"): ["1"],
    ("fact", "add"): ["Chad", "capital", "Abéché"],
    ("fact", "approve"): ["4"],
    ("fact", "reject"): ["4"],
    ("fact", "quarantine"): ["4"],
    ("fact", "requeue"): ["5"],
    ("fact", "retract"): ["1"],
    ("release", "list"): [],
    ("release", "show"): ["3"],
    ("release", "diff"): ["0", "3"],
    ("release", "verify"): ["3"],
    ("release", "approve"): ["4"],
    ("release", "promote"): ["4"],
    ("release", "prune"): ["--keep", "0"],
    ("release", "pin"): ["2"],
    ("release", "unpin"): ["3"],
    ("audit", "list"): [],
    ("audit", "verify"): [],
    ("audit", "export"): [],
    ("config", "show"): [],
    ("config", "check"): [],
    ("config", "path"): [],
    ("db", "check"): [],
    ("db", "backup"): [NEW],
    ("db", "vacuum"): [],
}
#: they work for as long as they run, and are tested where that is looked at
LONG = {("run",), ("demo",)}
#: they send signals to a daemon, and are tested where one runs
SIGNALS = {("reload",), ("stop",)}


def options(words: tuple[str, ...]) -> set[str]:
    return {option for parameter in LEAVES[words].params for option in parameter.opts}


CHANGES = sorted(words for words in set(LEAVES) - SIGNALS if "--dry-run" in options(words))
READS = sorted(set(LEAVES) - set(CHANGES) - SIGNALS - LONG)


#: what is in the log that LOG stands for
ROWS = '{"subject": "Mali", "relation": "capital", "object": "Kayes"}\n'


def call(words: tuple[str, ...], folder: Path, rows: str = ROWS) -> list[str]:
    """The command line of a command, for files in ``folder``."""
    log = folder / "corrections.jsonl"
    log.write_text(rows, "utf-8", newline="")
    real = {NEW: str(folder / "new"), LOG: str(log)}
    return [*words, *(real.get(one, one) for one in CALLS[words])]


def everything(folder: Path, text: str = "plain") -> State:
    """A state with sources, facts, releases, holds and a log; strangers' texts have ``text``."""
    state = new_state(folder)
    source = add_source(state, "world", failures=4, last_error=text, location=text, kind="log")
    add_source(state, "idle", state="paused")
    add_source(state, "away")
    entry = add_entry(state, source, text, text)
    texts: dict[str, Any] = {"relation": text, "entry": entry, "quote": text}
    held = [add_fact(state, f"{n} {text}", text, events=EDITED, **texts) for n in range(3)]
    for number in (1, 2, 3):
        measures = '{"reliability": {"right": 1, "asked": 2}}'
        ids = tuple(held[:number])
        add_release(state, number, ids, parent=number - 1, measures=measures)
    add_fact(state, f"4 {text}", text, events=("hold",), **texts)
    add_fact(state, f"5 {text}", text, events=("hold", "drop"), **texts)
    add_release(state, 4, tuple(held[:2]), parent=3, promote=False)
    with state.store() as store, store.write():
        store.connection.execute("UPDATE release SET pinned = 1 WHERE number = 3")
        store.connection.execute("UPDATE fact SET reason = ?", (text,))
        values = {"kind": "ingest", "reason": text, "since": timestamp(NOW)}
        store.db["hold"].insert(values)
        store.transition("fact", held[2], "retract", NOW + timedelta(hours=1), text)
        letter = {"source_id": source, "location": text, "code": "x", "message": text, "raw": text}
        store.db["dead_letter"].insert({**letter, "received_at": timestamp(NOW)})
    (state.logs / "wised.jsonl").write_text("raw\n", "utf-8")
    return state


def copied(base: State, folder: Path) -> State:
    """A state of one's own, to be changed."""
    shutil.copytree(base.folder, folder / "state", symlinks=True)
    return State(folder / "state")


def fingerprint(state: State) -> tuple[object, ...]:
    """All that a command that changes nothing must leave as it was."""
    database = hashlib.sha256((state.folder / "wised.db").read_bytes()).hexdigest()
    return database, dump(state), sorted(path.name for path in state.folder.iterdir())


class AnsweringWorker:
    """Stands for the process that holds the model."""

    def __init__(self, *where: object) -> None:
        pass

    def request(self, request: object, *rest: object) -> Answers:
        said = {"text": "Abéché", "bare": "x", "fact": 1, "cosine": 0.9, "threshold": 0.8}
        return Answers(answers=(Said(routed=True, **said),))

    def kill(self) -> None:
        pass
