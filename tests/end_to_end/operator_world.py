"""A small demo world per test: a real feed, a real log, the real model, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.config import default_file
from demo import feed
from demo.world import Update

#: fewer probes than by default, so that a cycle takes seconds
SMALL = {"far_probes = 480": "far_probes = 20", "retention_sample = 100": "retention_sample = 20"}


@dataclass
class World:
    """A state folder, and the ways an operator and a feed act on it."""

    folder: Path
    stack: ExitStack
    changes: Sequence[Update] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def wised(self, *words: str, code: int = 0) -> str:
        """Run a command; its standard output."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        """Run a reading command with --json; its document."""
        return json.loads(self.wised(*words, "--json"))

    def command(self, *words: str) -> list[str]:
        """The command line of ``wised``."""
        return [sys.executable, "-m", "daemon.cli", "--state", str(self.state), *words]

    def configure(self, **settings: object) -> None:
        """Make the state with a small gate and changed settings."""
        self.wised("init", str(self.state))
        text = default_file().read_text("utf-8")
        for old, new in SMALL.items():
            assert old in text
            text = text.replace(old, new)
        lines = text.splitlines()
        for key, value in settings.items():
            at = [i for i, line in enumerate(lines) if line.startswith(f"{key} =")]
            assert len(at) == 1, key
            lines[at[0]] = f"{key} = {value}"
        (self.state / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")

    def publish(self, name: str, changes: Sequence[Update]) -> None:
        """Serve changes as an Atom feed and add it as a trusted source."""
        url = self.stack.enter_context(feed.served(feed.document(changes))).url
        private = ("--allow-private", "127.0.0.0/8")
        self.wised("source", "add", "feed", url, "--name", name, "--tier", "trusted", *private)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in the background; it is killed at the end of the test."""
        process = subprocess.Popen(
            self.command(*words), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.stack.callback(_end, process)
        return process

    def events(self) -> list[dict[str, Any]]:
        """The status log so far."""
        log = self.state / "logs" / "wised.jsonl"
        text = log.read_text("utf-8") if log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def wait_for(self, event: str, count: int = 1, seconds: float = 120) -> None:
        """Wait until the status log shows ``event`` that often."""
        until = time.monotonic() + seconds
        while sum(e["event"] == event for e in self.events()) < count:
            assert time.monotonic() < until, f"{event} never came: {self.events()}"
            time.sleep(0.05)

    def states(self) -> dict[str, str]:
        """State of each fact, by subject and object."""
        listed = self.json("fact", "list", "--limit", "1000")["facts"]
        return {f"{f['subject']}: {f['object']}": f["state"] for f in listed}

    def ask(self, prompt: str) -> dict[str, Any]:
        """Ask the promoted release."""
        answer: dict[str, Any] = self.json("ask", prompt, "--explain")
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr:
        process.stderr.close()
