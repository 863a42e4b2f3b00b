"""Candidates without new facts that a stop or a broken installation cut short: tried again."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from test_attempts import Day, Stops, run_dry
from world import START, Builder, add_fact, config

from daemon import attempts, releases
from daemon.child import WorkerError
from daemon.cycle import cycle
from daemon.messages import Build, Built, ShardMade
from daemon.observe.tallies import Tallies
from daemon.state import State
from daemon.store import Store, facts


class CanNotBegin(Builder):
    """A worker without a driver, or without its model."""

    def __call__(self, request: Build) -> Built:
        self.requests.append(request)
        raise WorkerError("worker.failed", "no driver")


class Dies(CanNotBegin):
    """A worker that dies of what it does."""

    def __call__(self, request: Build) -> Built:
        self.requests.append(request)
        raise WorkerError("worker.killed", "the worker was killed", is_at_work=True)


class InShards(Builder):
    """Each fact in a small shard of its own, so that they are soon to be compacted."""

    def __call__(self, request: Build) -> Built:
        kept = [ShardMade(solved=1, inherited=i) for i in range(len(request.kept))]
        made = (*kept, *(ShardMade(solved=1, fullness=0.1) for _ in request.facts))
        built = super().__call__(request)
        return built.model_copy(update={"shards": made, "shard_of": tuple(range(len(made)))})


def retracted(state: State, store: Store, now: Day) -> None:
    """A promoted release with one fact, which is retracted."""
    gone = add_fact(store, "Italy", "Draghi")
    run_dry(state, store, Builder(), config(state), now)
    with store.write():
        store.transition("fact", gone, "retract", START, "wrong")


def sharded(state: State, store: Store, now: Day) -> None:
    """A promoted release with one shard too many."""
    for name in ("Italy", "Peru", "Chad"):
        add_fact(store, name, "Ada")
        done = cycle(state, store, config(state), InShards(), now)
        assert done is not None and done.outcome == "promoted"


def stop(state: State, store: Store, now: Day, times: int) -> None:
    """Stop the daemon in the middle of a build so often."""
    for _ in range(times):
        with pytest.raises(WorkerError, match="stopping"):
            cycle(state, store, config(state, retry_minutes=10), Stops(), now)
        newest = releases.all_releases(store)[-1]
        assert (newest.state, newest.reason) == ("refused", releases.INTERRUPTED)


def test_stops_do_not_use_up_the_tries_of_a_retraction(state: State, store: Store) -> None:
    now = Day()
    retracted(state, store, now)
    stop(state, store, now, 5)
    run_dry(state, store, Builder(), config(state, retry_minutes=10), now)
    assert facts.of_release(store, releases.promoted(store).number) == []


def test_a_stopped_build_counts_neither_as_refused_nor_as_failed(
    state: State, store: Store
) -> None:
    now = Day()
    retracted(state, store, now)
    before = Tallies()
    before.read(store)
    stop(state, store, now, 2)
    after = Tallies()
    after.read(store)
    assert after.gate == before.gate
    assert after.edit_buckets == before.edit_buckets


def test_a_retraction_that_can_not_begin_is_tried_later_and_later_but_at_most_a_day(
    state: State, store: Store
) -> None:
    now, settings, builder = Day(), config(state, retry_minutes=10), CanNotBegin()
    retracted(state, store, now)
    waits = []
    for _ in range(12):
        begun = now.now
        while not run_dry(state, store, builder, settings, now):
            now.now += timedelta(minutes=10)
            assert now.now - begun < timedelta(days=2), f"given up after {waits}"
        waits.append((now.now - begun) / timedelta(minutes=10))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 144, 144, 144]


def test_a_compaction_that_was_stopped_is_tried_again(state: State, store: Store) -> None:
    now = Day()
    sharded(state, store, now)
    stop(state, store, now, 2)
    builder = InShards()
    cycle(state, store, config(state), builder, now)
    assert [request.rewritten for request in builder.requests] == [(0, 1, 2)]


def test_a_compaction_that_takes_the_daemon_down_does_not_keep_new_facts_out(
    state: State, store: Store
) -> None:
    now, settings, builder = Day(), config(state, retry_minutes=10), InShards()
    sharded(state, store, now)
    new, compactions = add_fact(store, "Mali", "Ada"), 0

    class Down(BaseException):
        """Stands for the whole machine."""

    def build(request: Build) -> Built:
        nonlocal compactions
        if request.rewritten:
            compactions += 1
            raise Down
        return builder(request)

    for _ in range(2):
        attempts.note_interrupted(store, settings, now.now)
        releases.reconcile(state, store, now.now)
        with contextlib.suppress(Down):
            cycle(state, store, settings, build, now)
    assert compactions == 1
    assert facts.get(store, new).state == "promoted"


@pytest.mark.parametrize("builder", [CanNotBegin(), Dies()])
def test_a_clock_that_ran_ahead_does_not_let_a_retraction_be_tried_without_end(
    state: State, store: Store, builder: CanNotBegin
) -> None:
    now, settings = Day(), config(state, retry_minutes=10)
    retracted(state, store, now)
    now.now = START + timedelta(days=1)
    run_dry(state, store, builder, settings, now)
    now.now = START + timedelta(minutes=5)
    before = len(builder.requests)
    for _ in range(5):
        run_dry(state, store, builder, settings, now)
    assert len(builder.requests) == before + 1


def test_a_clock_that_ran_ahead_does_not_let_facts_be_tried_without_end(
    state: State, store: Store
) -> None:
    settings = config(state, retry_minutes=10)
    clumsy, now = Builder(wrong={add_fact(store, "Italy", "Ada")}), Day()
    now.now = START + timedelta(days=1)
    cycle(state, store, settings, clumsy, now)
    now.now = START + timedelta(minutes=5)
    before = len(clumsy.requests)
    assert cycle(state, store, settings, clumsy, now) is not None
    assert cycle(state, store, settings, clumsy, now) is None
    assert len(clumsy.requests) > before


@pytest.mark.parametrize(("builder", "due"), [(CanNotBegin(), True), (Dies(), False)])
def test_a_compaction_waits_for_other_work_only_after_it_failed_at_work(
    state: State, store: Store, builder: CanNotBegin, due: bool
) -> None:
    now, settings = Day(), config(state, retry_minutes=10)
    sharded(state, store, now)
    assert len(run_dry(state, store, builder, settings, now)) == 1
    now.now += timedelta(minutes=10)
    assert bool(run_dry(state, store, builder, settings, now)) == due
