"""How long the operator's commands take on a large store: one JSON line.

`wised status`, `fact list` and `rollback` run as processes of their own, as an operator starts
them, and so does `--help`, which is what starting Python and the command line takes alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon import releases
from daemon.state import State, init
from daemon.store import Store, timestamp
from ingest import fact_key, slot_key
from wise import manifest

START = datetime(2026, 1, 1, tzinfo=UTC)
#: of each ten facts, so many in each state; the rest are promoted
OTHERS = {"duplicate": 2, "superseded": 1, "pending": 1}
RELEASES = 10  #: promoted one after the other, each with a batch of facts more
BATCH = 100
COMMANDS = {
    "help": ["--help"],
    "status": ["status"],
    "fact_list": ["fact", "list"],
    "fact_list_of_a_subject": ["fact", "list", "--subject", "lake 99"],
    "fact_show": ["fact", "show", "500"],
    "release_list": ["release", "list"],
    "audit_list": ["audit", "list"],
    "rollback": ["rollback", "--reason", "bench"],
}
CHANGES = ("rollback",)


def main() -> None:
    """Make the store, time the commands, print one line."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="wised-bench-") as place:
        state = make(Path(place) / "state", arguments.facts, arguments.release_mb)
        found = {name: _timed(state, line, arguments.runs, name) for name, line in COMMANDS.items()}
        size = (state.folder / "wised.db").stat().st_size
    body = {
        "bench": "cli",
        "facts": arguments.facts,
        "database_mb": round(size / 1e6, 1),
        "release_mb": arguments.release_mb,
        "runs": arguments.runs,
        "cores": os.cpu_count(),
        "seconds": found,
    }
    print(json.dumps(body))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--release-mb", type=int, default=32, help="tensors of a release")
    parser.add_argument("--runs", type=int, default=9)
    return parser.parse_args()


def make(folder: Path, facts: int, release_mb: int) -> State:
    """Return a state with so many facts, most of them held by the promoted release."""
    state = init(folder, START)
    with state.store() as store:
        with store.write():
            _add_sources(store)
            held = _add_facts(store, facts)
        for number in range(1, RELEASES + 1):
            _add_release(state, store, number, held, release_mb)
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return state


def _add_sources(store: Store) -> None:
    for number in range(20):
        row = {"name": f"feed-{number}", "kind": "feed", "location": f"https://{number}.example"}
        at = {"next_poll_at": timestamp(START), "created_at": timestamp(START)}
        store.insert("source", {**row, **at, "tier": "normal"})


def _add_facts(store: Store, count: int) -> list[int]:
    """Store facts with an entry and an event each; return the ids of those to be promoted."""
    chosen = random.Random(0)
    states = [s for s, n in OTHERS.items() for _ in range(n)]
    states += ["promoted"] * (10 - len(states))
    held = []
    for number in range(1, count + 1):
        state = chosen.choice(states)
        if state == "promoted":
            state = "verified"
            held.append(number)
        store.connection.execute(_INSERT_FACT, _fact_row(number, state))
        entry = (number, number % 20 + 1, f"k{number}", f"h{number}", f"Lake {number} is renamed")
        store.connection.execute(_INSERT_ENTRY, (*entry, timestamp(START), "{}"))
        quote = f"Lake {number} is now called {number}"
        store.connection.execute("INSERT INTO evidence VALUES (?, ?, ?)", (number, number, quote))
        data = {"to": "received", "object": f"{number}", "entry": number}
        store.event("fact.receive", f"fact:{number}", data, START)
    return held


_INSERT_FACT = (
    "INSERT INTO fact (id, subject, relation, object, prompts, held_out, slot_key, fact_key, tier,"
    " extractor, state, reason, asserted_at, received_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_INSERT_ENTRY = (
    "INSERT INTO entry (id, source_id, key, content_hash, title, received_at, raw)"
    " VALUES (?,?,?,?,?,?,?)"
)


def _fact_row(number: int, state: str) -> tuple[Any, ...]:
    subject, relation, value = f"Lake {number}", "name", f"Name {number}"
    prompts = json.dumps([f"{kind} the name of {subject}" for kind in ("Say", "Give", "Tell me")])
    at = timestamp(START + timedelta(seconds=number))
    keys = (slot_key(subject, relation), fact_key(subject, relation, value))
    text = (prompts, "[]", *keys, "trusted", "bench/1", state, "the tier is trusted", at, at)
    return number, subject, relation, value, *text


def _add_release(state: State, store: Store, number: int, held: list[int], release_mb: int) -> None:
    """Publish and promote a release; the last one holds all of ``held``."""
    folder = state.releases / f"{number:06d}"
    folder.mkdir()
    tensors = random.Random(number).randbytes(release_mb << 20)
    (folder / "adapter_model.safetensors").write_bytes(tensors)
    digest = manifest.seal(folder, {"release": number})
    mine = held[: len(held) - BATCH * (RELEASES - number)]
    at = START + timedelta(days=1, minutes=number)
    before = releases.promoted(store).number
    with store.write():
        row = {"number": number, "state": "building", "parent": number - 1, "folder": folder.name}
        also = {"created_at": timestamp(at), "manifest_sha256": digest, "measures": _MEASURES}
        store.table("release").insert({**row, **also})
        shard = {"release": number, "position": 0, "made_in": 1, "solved": len(mine)}
        store.table("shard").insert({**shard, "fullness": 0.5})
        store.connection.executemany(
            "INSERT INTO release_fact (release, position, fact_id, shard) VALUES (?, ?, ?, 0)",
            [(number, place, fact) for place, fact in enumerate(mine)],
        )
        store.connection.execute(  # as promoting one after the other would leave them
            "UPDATE fact SET state = 'promoted' WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(mine),),
        )
        for event in ("publish", "verify"):
            store.transition("release", number, event, at)
        if before:
            _retain_previous(store, at)
        store.transition("release", before, "replace", at)
        store.transition("release", number, "promote", at, promoted_at=timestamp(at))
    releases.relink(state, store)


_MEASURES = json.dumps({"reliability": {"right": 99, "asked": 100}})


def _retain_previous(store: Store, at: datetime) -> None:
    for row in store.rows("SELECT number FROM release WHERE state = 'previous'"):
        store.transition("release", row["number"], "retain", at)


def _timed(state: State, line: list[str], runs: int, name: str) -> dict[str, float]:
    """Return the median and the best wall time of a command, and its CPU time, in seconds."""
    taken, before = [], _cpu_seconds()
    for copy in _states(state, runs, fresh=name in CHANGES):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "daemon.cli", "-C", str(copy.folder), *line],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        taken.append(time.perf_counter() - began)
    return {
        "median": round(statistics.median(taken), 3),
        "best": round(min(taken), 3),
        "cpu": round((_cpu_seconds() - before) / runs, 3),
    }


def _cpu_seconds() -> float:
    """Return what ended processes took; other work on the machine adds little to it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _states(state: State, runs: int, *, fresh: bool) -> Iterator[State]:
    """Yield a state for each run: a fresh copy where the command changes it."""
    for _ in range(runs):
        if not fresh:
            yield state
            continue
        with tempfile.TemporaryDirectory(prefix="wised-bench-") as place:
            shutil.copytree(state.folder, Path(place) / "state", symlinks=True)
            os.sync()
            yield State(Path(place) / "state")


if __name__ == "__main__":
    main()
