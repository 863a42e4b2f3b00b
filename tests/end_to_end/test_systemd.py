"""A real daemon with a socket in systemd's place, and its port asked while it runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon import service
from daemon import state as states
from daemon.state import State

ROOT = Path(service.__file__).resolve().parents[1]
RUN = "from daemon.cli import main; main()"
#: the main thread stops in a poll, as in a system call that never returns
STUCK = (
    "import time\n"
    "from daemon import polling, service\n"
    "service.POLL_GRACE_SECONDS = -59.0\n"
    "polling.poll = lambda *a: time.sleep(600)\n"
)


class Manager:
    """What systemd is to the daemon."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.words: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(0.2)

    def hear(self) -> None:
        """Take what was said until now."""
        while True:
            try:
                self.words += self._socket.recv(4096).decode().split("\n")
            except TimeoutError:
                return

    def wait_for(self, start: str, count: int = 1, seconds: float = 60) -> None:
        """Listen until ``count`` words begin so."""
        until = time.monotonic() + seconds
        while sum(word.startswith(start) for word in self.words) < count:
            assert time.monotonic() < until, f"{start} never came: {self.words}"
            self.hear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@wised-{uuid.uuid4()}"
    made = Manager(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def state(tmp_path: Path) -> State:
    return states.init(tmp_path / "state", service.now())


@pytest.fixture
def start(state: State) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    processes = []

    def begin(manager: Manager, program: str = RUN, watchdog_seconds: float = 0.9, **more: str):
        environment = {
            **os.environ,
            **more,
            "PYTHONPATH": str(ROOT),
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": str(int(watchdog_seconds * 1e6)),
        }
        words = [sys.executable, "-c", program, "-C", str(state.folder), "run"]
        processes.append(
            subprocess.Popen(
                words, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_daemon_tells_systemd_of_its_life(manager, start, state) -> None:
    daemon = start(manager)
    manager.wait_for("WATCHDOG=1", 3)
    said = manager.words
    assert said.count("READY=1") == 1
    assert said.index("READY=1") < said.index("WATCHDOG=1")
    assert any(word == "STATUS=release 0 answers; 0 facts wait; waiting for work" for word in said)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=30) == 0
    manager.hear()
    assert manager.words.count("STOPPING=1") == 1


def test_nothing_is_ready_when_the_configuration_is_bad(manager, start, state) -> None:
    state.config_file.write_text("[model]\nname = 1\n", "utf-8")
    assert start(manager).wait(timeout=60) == 2
    manager.hear()
    assert "READY=1" not in manager.words


def test_s10_the_watchdog_stops_when_the_control_thread_is_blocked(manager, start, state) -> None:
    """The process lives and its other threads run, and still systemd must come to end it."""
    log = state.folder / "rows.jsonl"
    log.touch()
    add = ["-C", str(state.folder), "source", "add", "log", str(log), "--name", "rows"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", RUN, *add], env=environment, check=True)
    daemon = start(manager, STUCK + RUN, watchdog_seconds=0.6)
    manager.wait_for("READY=1")
    manager.wait_for("STATUS=the main loop has not moved within its budget")
    manager.hear()
    manager.words.clear()
    time.sleep(2)  # three times the watchdog's limit
    manager.hear()
    assert daemon.poll() is None
    assert "WATCHDOG=1" not in manager.words
    assert "watchdog.withheld" in (state.logs / "wised.jsonl").read_text("utf-8")


@pytest.mark.skipif(
    not hasattr(service.Service, "reload"), reason="the daemon reads no configuration anew yet"
)
def test_a_reload_is_told_with_its_time_and_ends_ready(manager, start, state) -> None:
    daemon = start(manager)
    manager.wait_for("READY=1")
    daemon.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("MONOTONIC_USEC=")
    manager.wait_for("READY=1", 2)


def test_the_port_answers_beside_the_daemon(manager, start, state) -> None:
    text = state.config_file.read_text("utf-8")
    assert 'listen = ""' in text
    state.config_file.write_text(text.replace('listen = ""', 'listen = "127.0.0.1:0"'), "utf-8")
    start(manager)
    manager.wait_for("READY=1")
    lines = (state.logs / "wised.jsonl").read_text("utf-8").splitlines()
    (port,) = [part for line in lines for part in _ports(line)]
    for path, wanted in (("/livez", "alive\n"), ("/readyz", "ready\n")):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.read().decode() == wanted
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"\nwised_up 1.0\n" in answer.read()


def _ports(line: str) -> list[int]:
    found = json.loads(line)
    return [found["port"]] if found["event"] == "endpoint.listening" else []
