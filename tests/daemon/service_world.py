"""A daemon as a process, on the demo model, with workers that die when they are to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world import START

import daemon
from daemon.config import default_file
from daemon.state import State, init
from daemon.store import facts
from ingest import Candidate

ROOT = Path(daemon.__file__).resolve().parents[1]
#: keys of [daemon] that make a daemon look often and never wait
BUSY = {"cycle_interval_seconds": 0.2, "retry_minutes": 0}
#: fewer probes than by default, so that a build takes seconds
SMALL = {"far_probes": 20, "retention_sample": 5}


def configure(state: State, **settings: object) -> None:
    """Change keys of the default configuration, and write it into the state folder."""
    head, mark, tail = default_file().read_text("utf-8").partition("\n[daemon]\n")
    for key, value in (BUSY | SMALL | settings).items():
        pattern, line = rf"(?m)^(# )?{key} = [^ \n]+", f"{key} = {value}"
        tail, found = re.subn(pattern, line, tail)  # a key of another section may be named alike
        if not found:
            head, found = re.subn(pattern, line, head)
        assert found == 1, key
    text = head + mark + tail
    state.config_file.write_text(text, "utf-8")


def service_state(folder: Path, **settings: object) -> State:
    """A state folder on the demo model; no fact is in it."""
    state = init(folder / "state", START)
    configure(state, **settings)
    return state


def add_leaders(state: State, leaders: dict[str, str]) -> list[int]:
    """Insert approved facts, who leads which country; their ids."""
    relation, numbers = state.config().relations["head_of_government"], []
    with state.store() as store:
        for place, name in leaders.items():
            asked = [
                tuple(prompt.replace("{subject}", place) for prompt in prompts)
                for prompts in (relation.prompts, relation.held_out)
            ]
            one = Candidate(place, "head_of_government", name, None, *asked, place, "test/1")
            with store.write():
                numbers.append(facts.insert(store, one, None, "trusted", START, START))
                store.transition("fact", numbers[-1], "approve", START)
    return numbers


@dataclass
class Running:
    """A daemon that was started."""

    state: State
    process: subprocess.Popen[bytes]

    def events(self) -> list[dict[str, Any]]:
        """The status log so far."""
        log = self.state.logs / "wised.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def wait_for(self, event: str, count: int = 1, seconds: float = 40) -> dict[str, Any]:
        """Wait until the status log has an event that often; the last of them."""
        until = time.monotonic() + seconds
        while True:
            found = [e for e in self.events() if e["event"] == event]
            if len(found) >= count:
                return found[-1]
            assert time.monotonic() < until, f"no {event}: {self.events()}"
            assert self.process.poll() is None, f"ended: {self.events()}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        self.process.send_signal(number)

    def ends(self, seconds: float = 15) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(seconds)


@contextmanager
def running(state: State, *words: str, fault: str = "") -> Iterator[Running]:
    """Run a daemon for the block; ``fault`` lets its workers die (daemon/worker/faults.py)."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "WISED_TEST_FAULT": fault}
    with (state.logs / "stderr.txt").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "-C", str(state.folder), "run", *words],
            stdout=errors,
            stderr=errors,
            env=variables,
            cwd=state.folder,
        )
    try:
        yield Running(state, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wised(state: State, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", "-C", str(state.folder), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
