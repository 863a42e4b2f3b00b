"""The daemon as a process: signals, lock, reload, and workers that really die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_world import ROOT, Running, add_leaders, configure, running, service_state, wised
from world import START, states

from daemon import attempts, releases
from daemon.state import State
from daemon.store import facts, timestamp


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    """A state with nothing to do, used by one daemon after another."""
    return service_state(tmp_path_factory.mktemp("idle"))


@pytest.fixture
def idle(state: State) -> Iterator[Running]:
    with running(state) as daemon:
        count = sum(e["event"] == "daemon.ready" for e in daemon.events())
        daemon.wait_for("daemon.ready", count + 1)
        yield daemon


def test_s04_s05_the_lock_names_its_holder_and_goes_with_it(state: State, idle: Running) -> None:
    pid = idle.process.pid
    held = state.lock_file.read_text()
    assert held.startswith(f"pid {pid} on {socket.gethostname()} since ")
    second = wised(state, "run", "--once")
    assert second.returncode == 7
    assert f"pid {pid}" in second.stderr
    idle.signal(signal.SIGKILL)
    assert idle.ends() == -signal.SIGKILL
    again = wised(state, "run", "--once")  # at once
    assert again.returncode == 0, again.stderr
    assert wised(state, "stop").returncode == 7
    assert wised(state, "reload").returncode == 7


def test_s06_reload_takes_a_good_configuration_whole_and_refuses_a_bad_one(
    state: State, idle: Running
) -> None:
    def change(**settings: object) -> subprocess.CompletedProcess[str]:
        configure(state, **settings)
        return wised(state, "reload")

    done = change(keep_releases=7, shutdown_grace_seconds=9)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"pid {idle.process.pid}: in force, 2 keys changed\n")
    event = idle.wait_for("config.reloaded")
    assert event["changed"] == ["daemon.keep_releases", "daemon.shutdown_grace_seconds"]
    running_now = json.loads(state.running_file.read_text())
    assert running_now["daemon"]["keep_releases"] == 7
    with state.store(read_only=True) as store:
        (row,) = store.rows("SELECT * FROM event WHERE action = 'config.reload'")
    assert json.loads(row["data"]) == {"changed": event["changed"]}

    for settings, code, words in (
        ({"keep_releases": "0", "retry_minutes": "-1"}, 2, "daemon.retry_minutes"),
        ({"layer": 3}, 4, "model.layer can't change while wised runs"),
    ):
        done = change(**settings)  # type: ignore[arg-type]
        assert done.returncode == code
        assert words in done.stderr
        os.kill(idle.process.pid, signal.SIGHUP)  # as an operator does who knows no wised reload
        until = len(idle.events()) + 1
        refused = idle.wait_for("config.refused", 1 + (code == 4))
        assert words in refused["error"] and until
        assert json.loads(state.running_file.read_text()) == running_now
    configure(state, keep_releases=8)
    told = json.loads(wised(state, "reload", "--dry-run", "--json").stdout)
    assert (told["dry_run"], told["pid"]) == (True, idle.process.pid)
    assert told["changed"] == ["daemon.keep_releases", "daemon.shutdown_grace_seconds"]
    assert json.loads(state.running_file.read_text()) == running_now
    configure(state)


def test_a_reload_of_a_daemon_that_is_at_work_says_that_it_is_still_to_come(
    state: State, idle: Running
) -> None:
    before = sum(event["event"] == "config.reloaded" for event in idle.events())
    idle.signal(signal.SIGSTOP)  # stands for a step that takes long
    configure(state, keep_releases=7)
    ran = wised(state, "reload", "--timeout", "0.3", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["changed"], told["in_force"]) == (
        0,
        ["daemon.keep_releases"],
        False,
    )
    idle.signal(signal.SIGCONT)
    assert idle.wait_for("config.reloaded", before + 1)["changed"] == told["changed"]
    assert json.loads(wised(state, "reload", "--json").stdout)["in_force"] is True
    configure(state)


def test_sigusr1_writes_the_stacks_of_all_threads_and_stop_ends_with_0(
    state: State, idle: Running
) -> None:
    stacks, until, written = state.logs / "stacks.txt", time.monotonic() + 20, ""
    # The main thread stands in the loop, another one in the scheduler, once both have begun.
    while "loop.py" not in written or "apscheduler" not in written:
        assert time.monotonic() < until, written
        idle.signal(signal.SIGUSR1)
        time.sleep(0.2)
        written = stacks.read_text()
    assert wised(state, "stop", "--dry-run").stdout == f"pid {idle.process.pid}: would be stopped\n"
    assert idle.process.poll() is None
    done = json.loads(wised(state, "stop", "--json").stdout)
    assert (done["pid"], done["result"]) == (idle.process.pid, "stopped")
    assert idle.ends() == 0
    assert state.lock_file.read_text() == ""


def test_stop_does_not_wait_longer_than_it_may(state: State, idle: Running) -> None:
    ran = wised(state, "stop", "--timeout", "0")
    assert ran.returncode == 8
    assert f"pid {idle.process.pid} still runs" in ran.stderr
    assert idle.ends() == 0


def test_s03_a_source_that_dribbles_does_not_keep_the_daemon_from_ending(tmp_path: Path) -> None:
    state = service_state(tmp_path, shutdown_grace_seconds=0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        row = {"name": "slow", "kind": "feed", "tier": "trusted", "allow_private": "any"}
        row |= {"location": f"http://127.0.0.1:{server.getsockname()[1]}/"}
        row |= {"next_poll_at": timestamp(START), "created_at": timestamp(START)}
        with state.store() as store, store.write():
            store.insert("source", row)
        with running(state) as daemon:
            server.settimeout(20)
            connection, _ = server.accept()  # and never a word
            begun = time.monotonic()
            daemon.signal(signal.SIGTERM)
            assert daemon.ends() == 0
            assert time.monotonic() - begun < 5
            connection.close()
    with state.store() as store:
        (left,) = store.rows("SELECT failures, next_poll_at FROM source")
        assert tuple(left) == (0, timestamp(START))


def test_s03_a_stop_in_a_build_gives_the_batch_back_by_grace_or_at_once(tmp_path: Path) -> None:
    state = service_state(tmp_path, shutdown_grace_seconds=1)
    add_leaders(state, {"Italy": "Ada Lovelace", "Peru": "Alan Turing"})
    for second, code in ((None, 0), (signal.SIGTERM, 143)):
        configure(state, shutdown_grace_seconds=60 if second else 1)
        with running(state, fault="hang:Ada") as daemon:
            count = sum(e["event"] == "release.building" for e in daemon.events())
            daemon.wait_for("release.building", count + 1)
            begun = time.monotonic()
            daemon.signal(signal.SIGTERM)
            if second:
                time.sleep(0.5)
                assert daemon.process.poll() is None
                daemon.signal(second)
            assert daemon.ends() == code
            assert time.monotonic() - begun < 6
        with state.store() as store:
            (left,) = attempts.waiting(store)
            assert (left.facts, left.attempts) == (2, 0)
            assert set(states(store).values()) == {"approved"}
            assert store.verify_events() > 0


def test_s07_s08_a_real_worker_dies_of_three_facts_and_the_fourth_gets_in(tmp_path: Path) -> None:
    """Killed, crashed, out of memory by its own word: each is found and left out."""
    state = service_state(tmp_path, max_attempts=1)
    leaders = {"Italy": "Ada", "Chad": "Bob", "Peru": "Cleo", "Norway": "Eve"}
    kill, crash, memory, good = add_leaders(state, leaders)
    with running(state, "--once", fault="kill:Ada,crash:Bob,raise:Cleo") as daemon:
        assert daemon.ends(300) == 0
    with state.store() as store:
        dead = (kill, crash, memory)
        assert states(store) == dict.fromkeys(dead, "failed") | {good: "promoted"}
        reasons = [facts.get(store, number).reason for number in dead]
        held = facts.of_release(store, releases.promoted(store).number)
        assert [fact.object for fact in held] == ["Eve"]
        assert store.verify_events() > 0
    assert reasons == [
        "alone: the worker was killed (signal 9): likely out of memory",
        "alone: the worker crashed (signal 11, SIGSEGV)",
        "alone: MemoryError: can't allocate 64 GiB",
    ]
    log = (state.logs / "worker.log").read_text("utf-8", "replace")
    assert "Fatal Python error: Segmentation fault" in log
    assert "MemoryError: can't allocate 64 GiB" in log
    assert not [p for p in state.releases.iterdir() if p.name.startswith(".tmp-")]


IDLE_TICK = """
import sys
from pathlib import Path
from daemon import log, service
from daemon.loop import Loop
from daemon.signals import Asked, handled
from daemon.state import State
state = State(Path(sys.argv[1]))
asked = Asked(1)
with state.lock(), state.store() as store, handled(asked, state.logs):
    made = service.Service(state, store, state.config(), log.setup(state.logs), asked)
    made.start()
    loop = Loop(made, asked, service.STAGES, made.log, service.now)
    loop.ticks.start()
    loop.step()
    assert not loop.ticks.take("edit")
    loop.ticks.stop()
    made.close()
heavy = {"torch", "transformers", "sentence_transformers", "safetensors"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_daemon_imports_neither_torch_nor_transformers_in_a_whole_tick(state: State) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IDLE_TICK, str(state.folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.stdout == "[]\n", done.stderr
