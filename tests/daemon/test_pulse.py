"""Signs of life: what counts as alive, and for how long without a move."""

import threading

import pytest

from daemon.observe import health
from daemon.observe.pulse import GRACE_SECONDS, IDLE_SECONDS, Pulse, Watched


class Time:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def pulse(time):
    made = Pulse(time)
    made.ready()
    return made


def test_an_idle_loop_must_beat_every_half_minute(pulse, time):
    time.now += IDLE_SECONDS
    assert pulse.read().alive
    time.now += 0.1
    assert not pulse.read().alive
    pulse.beat()
    assert pulse.read().alive


def test_a_step_may_take_its_own_budget_and_no_longer(pulse, time):
    with pulse.during("ingest", 100):
        time.now += 100
        assert pulse.read().alive
        time.now += 1
        assert not pulse.read().alive
    time.now += IDLE_SECONDS
    assert pulse.read().alive
    time.now += 1
    assert not pulse.read().alive


def test_a_step_that_fails_gives_its_budget_back(pulse, time):
    with pytest.raises(ValueError), pulse.during("edit", 1000):
        raise ValueError
    time.now += IDLE_SECONDS + 1
    assert not pulse.read().alive
    assert pulse.read().work is None


def test_each_look_at_the_stop_flag_is_a_beat(pulse, time):
    """So a build of an hour, in which the main thread waits for the worker, is no stall."""
    stop = threading.Event()
    watched = Watched(pulse, stop)
    with pulse.during("edit", 10), pulse.asking(3600):
        for _ in range(3600 // 9):
            time.now += 9
            assert watched.is_set() is False
            assert pulse.read().alive
    stop.set()
    assert watched.is_set() is True


def test_a_worker_past_its_budget_is_no_life_even_if_the_loop_beats(pulse, time):
    with pulse.asking(60):
        time.now += 60 + GRACE_SECONDS
        pulse.beat()
        assert pulse.read().alive
        time.now += 1
        pulse.beat()
        assert not pulse.read().alive
    pulse.beat()
    assert pulse.read().alive


def test_work_says_what_it_is_and_how_far(pulse):
    assert pulse.read().work is None
    with pulse.during("edit"):
        pulse.report("loading the model", 0, 1)
        assert pulse.read().is_loading
        pulse.report("training the shard", 3, 40)
        work = pulse.read().work
        assert (work.stage, work.doing, work.done, work.total) == (
            "edit",
            "training the shard",
            3,
            40,
        )
        assert not pulse.read().is_loading
    assert pulse.read().work is None
    assert {"control", "edit", "worker"} <= set(pulse.read().beats)


def reasons(pulse, trouble=None):
    return health.of(pulse.read(), trouble).reasons


def test_it_is_ready_when_the_store_is_in_line_and_nothing_fails(time):
    pulse = Pulse(time)
    assert reasons(pulse)[0].startswith("starting")
    pulse.ready()
    assert reasons(pulse) == ()
    pulse.failed("worker", "worker.died: code -9")
    assert reasons(pulse) == ("failing: worker: worker.died: code -9",)
    pulse.succeeded("worker")
    pulse.succeeded("worker")
    assert reasons(pulse) == ()
    assert reasons(pulse, "disk I/O error") == ("the store: disk I/O error",)
    pulse.stopping()
    assert reasons(pulse) == ("stopping",)


def test_a_failing_worker_makes_it_unready_but_not_dead(pulse):
    pulse.failed("worker", "out of memory")
    found = health.of(pulse.read(), None)
    assert found.alive
    assert not found.ready


def test_the_status_line_is_the_first_trouble_or_what_goes_on(pulse):
    def line():
        vital = pulse.read()
        return health.line(vital, health.of(vital, None), 7, 12)

    assert line() == "release 7 answers; 12 facts wait; waiting for work"
    with pulse.during("edit"):
        pulse.report("training the shard", 1, 40)
        assert line() == "release 7 answers; 12 facts wait; edit training the shard"
    pulse.failed("edit", "no disk")
    assert line() == "failing: edit: no disk"
