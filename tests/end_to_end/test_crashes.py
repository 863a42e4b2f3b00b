"""A real daemon, killed and stopped in the middle of its work: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from operator_world import World

from demo.world import Update


def finish(world: World, changes: list[Update]) -> None:
    """Start again, let the work end, and hold every invariant against it."""
    world.wised("run", "--once")
    states = world.states()
    assert sorted(states.values()) == ["promoted"] * len(changes)
    releases = world.json("release", "list")["releases"]
    assert [r["state"] for r in releases].count("promoted") == 1
    number = world.json("status")["release"]["number"]
    world.wised("release", "verify", str(number))
    world.wised("audit", "verify")
    held = (world.state / "current" / "facts.jsonl").read_text().splitlines()
    assert len(held) == len(changes)
    assert not [p for p in (world.state / "releases").iterdir() if p.name.startswith(".tmp-")]


def worker_ended(pid: int) -> bool:
    """Whether no worker of the killed daemon is left after a moment."""
    for _ in range(100):
        children = [p for p in os.listdir("/proc") if p.isdigit() and _is_worker_of(p, pid)]
        if not children:
            return True
        time.sleep(0.1)
    return False


def _is_worker_of(process: str, pid: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[1] == str(pid)
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("event", ["source.polled", "facts.triaged", "release.building"])
def test_s02_sigkill_after_any_stage_loses_nothing(
    world: World, changes: list[Update], event: str
) -> None:
    world.configure()
    world.publish("offices", changes[:4])
    daemon = world.start("run")
    world.wait_for(event)
    time.sleep(random.random())
    daemon.kill()
    daemon.wait()
    assert worker_ended(daemon.pid)
    finish(world, changes[:4])


def test_s03_sigterm_in_the_middle_of_a_build_ends_cleanly(
    world: World, changes: list[Update]
) -> None:
    world.configure(shutdown_grace_seconds=5)
    world.publish("offices", changes[:4])
    daemon = world.start("run")
    world.wait_for("release.building")
    time.sleep(1)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=20) == 0
    assert world.events()[-1]["event"] == "daemon.stopped"
    finish(world, changes[:4])


def test_s04_the_daemon_runs_alone_works_a_cycle_and_stops_idle(
    world: World, changes: list[Update]
) -> None:
    world.configure(cycle_interval_seconds=1)
    world.publish("offices", changes[:4])
    daemon = world.start("run")
    world.wait_for("daemon.ready")
    refused = world.start("run", "--once")
    assert refused.wait(timeout=20) == 7
    assert refused.stderr is not None and f"pid {daemon.pid}" in refused.stderr.read()
    world.wait_for("release.promoted")
    assert world.json("status")["daemon"]["running"] is True
    daemon.send_signal(signal.SIGINT)
    assert daemon.wait(timeout=10) == 0
