"""The loop: what flags, ticks, signals and clocks make it do, stepped by hand."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from world import START, config, new_state

from daemon.config import Config
from daemon.errors import WisedError
from daemon.loop import Loop
from daemon.observe.pulse import Pulse
from daemon.signals import Asked
from daemon.ticks import Ticks

BERLIN_NIGHT = datetime(2024, 10, 27, 0, 59, 30, tzinfo=UTC)  #: 3:00 becomes 2:00 in Berlin


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((event, fields))


@dataclass
class Hands:
    """A wall clock and a monotonic one, moved together or apart."""

    wall: datetime = START
    steady: float = 100.0

    def go_on(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


@dataclass
class Worked:
    """Stands for the service: counts what it is asked to do."""

    config: Config
    hands: Hands
    polls: int = 0
    works: int = 0
    backlog: int = 0
    jumps: list[timedelta] = field(default_factory=list)
    reloads: bool = True
    pulse: Pulse = field(default_factory=Pulse)
    during: Callable[[], None] = lambda: None

    def poll_due(self) -> int:
        self.polls += 1
        return 0

    def read_due(self) -> int:
        return 0

    def work(self) -> bool:
        self.works += 1
        self.during()
        self.backlog -= 1
        return self.backlog > 0

    def reload(self) -> bool:
        return self.reloads

    def clock_was_set(self, by: timedelta) -> None:
        self.jumps.append(by)


@pytest.fixture
def worked(tmp_path: Path) -> Worked:
    return Worked(config(new_state(tmp_path)), Hands())


@pytest.fixture
def asked(worked: Worked) -> Asked:
    return Asked(30, lambda: worked.hands.steady)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def loop(worked: Worked, asked: Asked, log: Log) -> Iterator[Loop]:
    hands = worked.hands
    made = Loop(worked, asked, {"ingest", "edit"}, log, lambda: hands.wall, lambda: hands.steady)
    yield made
    made.ticks.stop()


def test_s01_ticks_that_pile_up_behind_a_long_job_are_one_run_and_none_is_lost(
    loop: Loop, worked: Worked
) -> None:
    def long_job() -> None:
        for _ in range(1000):
            loop.ticks.flag("edit")
            loop.ticks.flag("ingest")

    worked.during = long_job
    loop.ticks.flag("edit")
    loop.step()
    assert (worked.polls, worked.works) == (0, 1)
    worked.during = lambda: None
    loop.step()
    loop.step()
    assert (worked.polls, worked.works) == (1, 2)


def test_s01_real_ticks_behind_a_long_job_make_one_run(worked: Worked) -> None:
    """APScheduler's own clock: a job that sets a flag can't be late, missed or refused."""
    ticks = Ticks({"edit": 0.05})
    ticks.start()
    try:
        assert ticks.take("edit")  # at the start
        time.sleep(0.5)  # some ten ticks
        assert ticks.take("edit")
        assert not ticks.take("edit")
    finally:
        ticks.stop()


def test_a_backlog_is_worked_off_without_waiting_for_a_tick(loop: Loop, worked: Worked) -> None:
    worked.backlog = 3
    loop.ticks.flag("edit")
    for _ in range(5):
        loop.step()
    assert worked.works == 3


def test_the_schedulers_settings_are_explicit() -> None:
    from apscheduler.jobstores.memory import MemoryJobStore

    ticks = Ticks({"ingest": 1.0, "edit": 60.0})
    ticks.start()
    try:
        scheduler = ticks._scheduler
        assert scheduler is not None
        assert scheduler.timezone is UTC
        assert [type(s) for s in scheduler._jobstores.values()] == [MemoryJobStore]
        jobs = {job.id: job for job in scheduler.get_jobs()}
        assert set(jobs) == {"ingest", "edit"}
        for job in jobs.values():
            assert (job.misfire_grace_time, job.coalesce, job.max_instances) == (None, True, 1)
        assert jobs["edit"].trigger.interval == timedelta(seconds=60)
        assert jobs["edit"].trigger.jitter == 6
    finally:
        ticks.stop()


@pytest.mark.parametrize("days", [1, -1])
def test_s09_a_clock_jump_of_a_day_is_noticed_and_everything_looked_at(
    loop: Loop, worked: Worked, log: Log, days: int
) -> None:
    loop.step()
    worked.hands.go_on(1)
    worked.hands.wall += timedelta(days=days)
    loop.step()
    assert worked.jumps == [timedelta(days=days)]
    assert (worked.polls, worked.works) == (1, 1)
    assert log.lines == [("clock.was_set", {"by_seconds": days * 86400})]
    worked.hands.go_on(3600)  # a stage that took an hour is no jump
    loop.step()
    assert len(worked.jumps) == 1


def test_s09_ticks_go_on_although_the_store_is_locked_when_the_clock_is_set_back(
    loop: Loop, worked: Worked, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next tick comes a day later, and what waits in the store waits by the old clock."""
    set_back = worked.clock_was_set

    def locked(by: timedelta) -> None:
        raise sqlite3.OperationalError("database is locked")

    loop.step()
    worked.hands.go_on(1)
    worked.hands.wall -= timedelta(days=1)
    monkeypatch.setattr(worked, "clock_was_set", locked)
    loop.step()
    assert (worked.polls, worked.works) == (1, 1)
    assert [event for event, _ in log.lines] == ["clock.was_set", "work.failed"]
    monkeypatch.setattr(worked, "clock_was_set", set_back)
    worked.hands.go_on(1)
    loop.step()
    loop.step()
    assert worked.jumps == [timedelta(days=-1)]


def test_s09_a_night_in_which_local_time_jumps_is_none_in_utc(
    worked: Worked, asked: Asked, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        worked.hands.wall = BERLIN_NIGHT
        local = [
            BERLIN_NIGHT.astimezone().hour,
            (BERLIN_NIGHT + timedelta(minutes=1)).astimezone().hour,
        ]
        assert local == [2, 2]  # the zone is in force: an hour passes twice
        hands = worked.hands
        loop = Loop(worked, asked, {"edit"}, log, lambda: hands.wall, lambda: hands.steady)
        for _ in range(120):
            loop.ticks.flag("edit")
            loop.step()
            hands.go_on(60)
        assert worked.works == 120
        assert (worked.jumps, log.lines) == ([], [])
    finally:
        monkeypatch.undo()
        time.tzset()


def test_s09_ticks_go_on_after_the_wall_clock_was_set_back() -> None:
    """The next tick was planned by the old clock: it would come a day too late."""
    ticks = Ticks({"edit": 0.1})
    ticks.start()
    try:
        assert ticks.take("edit")
        scheduler = ticks._scheduler
        assert scheduler is not None
        scheduler.modify_job("edit", next_run_time=datetime.now(UTC) + timedelta(days=1))
        ticks.take("edit")
        time.sleep(0.3)
        assert not ticks.take("edit")
        ticks.restart({"edit": 0.1})
        assert ticks.take("edit")
        time.sleep(0.4)
        assert ticks.take("edit")
    finally:
        ticks.stop()


def test_s03_the_first_signal_drains_and_begins_nothing_new(
    loop: Loop, worked: Worked, asked: Asked
) -> None:
    worked.backlog = 9
    worked.during = asked.stop
    loop.ticks.flag("edit")
    loop.step()
    loop.ticks.flag("ingest")
    loop.step()
    assert (worked.works, worked.polls) == (1, 0)
    assert asked.to_drain and not asked.is_set()
    assert asked.exit_code == 0


def test_s03_the_grace_ends_what_goes_on_and_is_still_a_drained_stop(
    worked: Worked, asked: Asked
) -> None:
    asked.stop(signal.SIGTERM)
    worked.hands.go_on(29.9)
    assert not asked.is_set()
    worked.hands.go_on(0.2)
    assert asked.is_set()
    assert asked.exit_code == 0


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_s03_the_second_signal_stops_at_once(asked: Asked, second: int, code: int) -> None:
    asked.stop(signal.SIGTERM)
    asked.stop(second)
    assert asked.is_set()
    assert asked.exit_code == code


def test_a_failure_is_logged_and_tried_again_at_the_next_tick(
    loop: Loop, worked: Worked, log: Log
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    def refused() -> None:
        raise WisedError("it can't be", hint="change it")

    for fails, words in ((full, "No space left"), (refused, "it can't be")):
        worked.during = fails
        loop.ticks.flag("edit")
        loop.step()
        event, fields = log.lines[-1]
        assert event == "work.failed" and words in fields["error"]
    worked.during = lambda: None
    loop.ticks.flag("edit")
    loop.step()
    assert worked.works == 3


def test_a_bug_is_not_hidden(loop: Loop, worked: Worked) -> None:
    worked.during = lambda: [][1]
    loop.ticks.flag("edit")
    with pytest.raises(IndexError):
        loop.step()


def test_s06_a_reload_happens_between_two_pieces_of_work_and_takes_the_new_periods(
    loop: Loop, worked: Worked, asked: Asked
) -> None:
    loop.ticks.start()
    for stage in ("ingest", "edit"):
        loop.ticks.take(stage)
    daemon = worked.config.daemon.model_copy(
        update={"cycle_interval_seconds": 7200, "shutdown_grace_seconds": 5}
    )
    worked.config = worked.config.model_copy(update={"daemon": daemon})
    asked.reload = True
    loop.step()
    assert not asked.reload
    assert asked.grace_seconds == 5
    away = loop.ticks.next_tick("edit")
    assert away is not None and away - datetime.now(UTC) > timedelta(minutes=110)


def test_s06_a_refused_reload_changes_no_period(loop: Loop, worked: Worked, asked: Asked) -> None:
    worked.reloads = False
    asked.reload = True
    loop.step()
    assert asked.grace_seconds == 30
