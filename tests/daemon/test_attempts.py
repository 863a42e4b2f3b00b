"""Batches whose worker dies: tried again, waited for, split until the poison fact is alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cli_world import wised
from world import START, Builder, Clock, add_fact, config, states

from daemon import attempts, releases
from daemon.child import WorkerError
from daemon.config import Config
from daemon.cycle import Done, cycle
from daemon.messages import Build, Built
from daemon.state import State
from daemon.store import Store, clock, facts

NAMES = [f"Land {chr(65 + i)}" for i in range(20)]


@dataclass
class Poisoned(Builder):
    """A worker that dies whenever one of some facts is in the batch."""

    poison: set[int] = field(default_factory=set)
    is_at_work: bool = True
    tried: list[list[int]] = field(default_factory=list)

    def __call__(self, request: Build) -> Built:
        self.tried.append([fact.id for fact in request.facts])
        if self.poison & set(self.tried[-1]):
            raise WorkerError("worker.killed", "the worker was killed", is_at_work=self.is_at_work)
        return super().__call__(request)


@dataclass
class Day:
    """A clock that stands still until it is told to go on."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


def run_dry(state: State, store: Store, builder: Builder, settings: Config, now: Day) -> list[Done]:
    """Run cycles until nothing is due."""
    done = []
    while (one := cycle(state, store, settings, builder, now)) is not None:
        done.append(one)
        assert len(done) < 200
    return done


@pytest.mark.parametrize("poison", [{1}, {20}, {7, 8}, {3, 11, 19}])
def test_s07_everything_gets_in_but_the_facts_that_kill_the_worker(
    state: State, store: Store, poison: set[int]
) -> None:
    ids = {add_fact(store, name, f"Ada {name}") for name in NAMES}
    builder = Poisoned(poison=poison)
    run_dry(state, store, builder, config(state), Day())
    found = states(store)
    assert {i for i in ids if found[i] == "failed"} == poison
    assert {i for i in ids if found[i] == "promoted"} == ids - poison
    for one in poison:
        fact = facts.get(store, one)
        assert fact.reason == "alone: the worker was killed"
        assert builder.tried.count([one]) == 3
    assert attempts.waiting(store) == []
    assert store.verify_events() > 0


def test_s07_a_batch_is_tried_three_times_and_then_split_in_halves(
    state: State, store: Store
) -> None:
    for name in NAMES[:5]:
        add_fact(store, name, "Ada")
    builder = Poisoned(poison={5})
    run_dry(state, store, builder, config(state), Day())
    whole, first, second = [1, 2, 3, 4, 5], [1, 2, 3], [4, 5]
    assert builder.tried == [whole] * 3 + [first] + [second] * 3 + [[4]] + [[5]] * 3
    splits = store.rows("SELECT subject, data FROM event WHERE action = 'batch.split' ORDER BY seq")
    assert [row["subject"] for row in splits] == ["batch:1", "batch:3"]
    parents = store.rows("SELECT id, split_from FROM batch ORDER BY id")
    assert [tuple(row) for row in parents] == [(1, None), (2, 1), (3, 1), (4, 3), (5, 3)]


def test_s07_a_failed_attempt_is_recorded_and_the_wait_doubles(state: State, store: Store) -> None:
    fact, now = add_fact(store, "Italy", "Draghi"), Day()
    settings = config(state, retry_minutes=10)
    builder = Poisoned(poison={fact})
    waits = []
    for attempt in (1, 2):
        (done,) = run_dry(state, store, builder, settings, now)
        assert (done.outcome, len(builder.tried)) == ("failed", attempt)
        (one,) = attempts.waiting(store)
        assert (one.batch, one.facts, one.attempts) == (1, 1, attempt)
        assert one.error == "the worker was killed"
        assert facts.get(store, fact).state == "approved"
        assert f"from {one.next_attempt_at.isoformat(timespec='microseconds')}" in (
            facts.get(store, fact).reason
        )
        waits.append(one.next_attempt_at - now.now)
        now.now = one.next_attempt_at - timedelta(seconds=1)
        assert run_dry(state, store, builder, settings, now) == []
        now.now = one.next_attempt_at
    assert timedelta(minutes=5) <= waits[0] <= timedelta(minutes=10)
    assert timedelta(minutes=10) <= waits[1] <= timedelta(minutes=20)
    events = store.rows("SELECT subject FROM event WHERE action = 'batch.fail'")
    assert [row["subject"] for row in events] == ["batch:1", "batch:1"]
    run_dry(state, store, builder, settings, now)
    assert states(store) == {fact: "failed"}


def test_s07_the_status_says_when_the_next_attempt_is(state: State, store: Store) -> None:
    for name in NAMES[:2]:
        add_fact(store, name, "Ada")
    run_dry(state, store, Poisoned(poison={1}), config(state, retry_minutes=10), Day())
    (one,) = attempts.waiting(store)
    at = one.next_attempt_at.isoformat()
    rows = dict(wised(state, "status").rows)
    assert rows["batch 1"] == f"2 facts, next attempt at {at}, 1 failed: the worker was killed"
    assert wised(state, "status", "--json").json["waiting_batches"] == [
        {
            "batch": 1,
            "facts": 2,
            "attempts": 1,
            "next_attempt_at": at,
            "error": "the worker was killed",
        }
    ]


def test_s07_a_waiting_batch_holds_up_nothing_else(state: State, store: Store) -> None:
    bad, now = add_fact(store, "Italy", "Draghi"), Day()
    settings, builder = config(state, retry_minutes=10), Poisoned(poison={bad})
    run_dry(state, store, builder, settings, now)
    new = add_fact(store, "Chad", "Kebzabo")
    run_dry(state, store, builder, settings, now)
    assert states(store) == {bad: "approved", new: "promoted"}
    assert builder.tried == [[bad], [new]]


def test_s07_a_waiting_fact_can_be_overtaken_and_then_its_batch_is_over(
    state: State, store: Store
) -> None:
    bad, now = add_fact(store, "Italy", "Draghi"), Day()
    settings, builder = config(state, retry_minutes=10), Poisoned(poison={bad})
    run_dry(state, store, builder, settings, now)
    new = add_fact(store, "Italy", "Meloni", at=START + timedelta(days=1))
    now.now += timedelta(hours=1)
    run_dry(state, store, builder, settings, now)
    assert states(store) == {bad: "superseded", new: "promoted"}
    assert attempts.is_waiting(store) == set()


def test_s07_a_restart_in_the_middle_goes_on_where_it_was(state: State) -> None:
    """A new process, a new connection: what was found out about the poison is in the tables."""
    with state.store() as store:
        for name in NAMES[:8]:
            add_fact(store, name, "Ada")
    tried: list[list[int]] = []
    for _ in range(60):
        with state.store() as store:
            attempts.note_interrupted(store, config(state), START)
            releases.reconcile(state, store, START)
            builder = Poisoned(poison={6})
            done = cycle(state, store, config(state), builder, Day())
            tried += builder.tried
            if done is None:
                found = states(store)
                break
    whole, second = list(range(1, 9)), [5, 6, 7, 8]
    halves = [[1, 2, 3, 4]] + [second] * 3
    assert tried == [whole] * 3 + halves + [[5, 6]] * 3 + [[7, 8]] + [[5]] + [[6]] * 3
    assert found == dict.fromkeys(range(1, 9), "promoted") | {6: "failed"}


class Killed(BaseException):
    """Stands for the daemon's own end."""


class Ends(Poisoned):
    """The poison takes the daemon down with the worker."""

    def __call__(self, request: Build) -> Built:
        try:
            return super().__call__(request)
        except WorkerError:
            raise Killed from None


def test_s07_poison_that_takes_the_daemon_down_is_isolated_and_put_off_but_not_failed(
    state: State,
) -> None:
    with state.store() as store:
        for name in NAMES[:4]:
            add_fact(store, name, "Ada")
    settings, ends = config(state, retry_minutes=10), 0
    while True:
        with state.store() as store:
            attempts.note_interrupted(store, settings, START)
            releases.reconcile(state, store, START)
            try:
                if cycle(state, store, settings, Ends(poison={2}), Day()) is None:
                    break
            except Killed:
                ends += 1
    assert ends == 9  # three each: with all, with its half, alone
    with state.store() as store:
        assert states(store) == {1: "promoted", 2: "approved", 3: "promoted", 4: "promoted"}
        (left,) = attempts.waiting(store)
        assert (left.facts, left.next_attempt_at - START) == (1, timedelta(minutes=40))


def test_s07_a_worker_that_can_not_even_begin_fails_no_fact(state: State, store: Store) -> None:
    """No GPU, no model, a broken installation: tried again, later and later, but not split."""
    ids, now = [add_fact(store, name, "Ada") for name in NAMES[:4]], Day()
    settings = config(state, retry_minutes=10)
    builder = Poisoned(poison=set(ids), is_at_work=False)
    for _ in range(12):
        run_dry(state, store, builder, settings, now)
        now.now += timedelta(days=1)
    assert builder.tried == [ids] * 12
    builder.poison = set()
    run_dry(state, store, builder, settings, now)
    assert set(states(store).values()) == {"promoted"}


class Stops(Builder):
    def __call__(self, request: Build) -> Built:
        raise WorkerError("worker.stopped", "the daemon is stopping")


def test_s03_a_stop_takes_the_attempt_back(state: State, store: Store) -> None:
    for name in NAMES[:3]:
        add_fact(store, name, "Ada")
    ticking = Clock()
    for _ in range(5):
        with pytest.raises(WorkerError):
            cycle(state, store, config(state), Stops(), ticking)
    (one,) = attempts.waiting(store)
    assert (one.facts, one.attempts) == (3, 0)
    cycle(state, store, config(state), Builder(), ticking)
    assert set(states(store).values()) == {"promoted"}


def test_a_retraction_is_not_held_up_by_batches_that_die(state: State, store: Store) -> None:
    gone, now = add_fact(store, "Italy", "Draghi"), Day()
    run_dry(state, store, Builder(), config(state), now)
    bad = add_fact(store, "Peru", "Sagasti")
    run_dry(state, store, Poisoned(poison={bad}), config(state), now)
    assert states(store)[bad] == "failed"
    with store.write():
        store.transition("fact", gone, "retract", START, "wrong")
    run_dry(state, store, Builder(), config(state), now)
    assert facts.of_release(store, releases.promoted(store).number) == []


def test_a_release_that_only_forgets_waits_between_its_tries(state: State, store: Store) -> None:
    gone, now = add_fact(store, "Italy", "Draghi"), Day()
    settings = config(state, retry_minutes=10)
    run_dry(state, store, Builder(), settings, now)
    with store.write():
        store.transition("fact", gone, "retract", START, "wrong")

    class Dies(Builder):
        def __call__(self, request: Build) -> Built:
            raise WorkerError("worker.killed", "the worker was killed", is_at_work=True)

    done = []
    for minutes in (0, 9, 1, 19, 1, 24 * 60 - 1, 1, 24 * 60 - 1, 1):
        now.now += timedelta(minutes=minutes)
        done.append(len(run_dry(state, store, Dies(), settings, now)))
    assert done == [1, 0, 1, 0, 1, 0, 1, 0, 1]  # after the third, once a day
    now.now += timedelta(days=1)
    run_dry(state, store, Builder(), settings, now)
    assert facts.of_release(store, releases.promoted(store).number) == []


def test_s09_a_clock_that_was_set_back_puts_nothing_off(state: State, store: Store) -> None:
    bad, now = add_fact(store, "Italy", "Draghi"), Day(START + timedelta(days=1))
    settings, builder = config(state, retry_minutes=10), Poisoned(poison={bad})
    run_dry(state, store, builder, settings, now)
    now.now -= timedelta(days=1)
    assert run_dry(state, store, builder, settings, now) == []
    assert clock.is_behind(store, now())
    clock.let_all_be_due(store, now())
    assert len(run_dry(state, store, builder, settings, now)) == 1
