"""The service's single steps, without a process: what breaks off in the middle of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import START, Builder, add_fact, config, new_state, states

from daemon import attempts, service
from daemon.child import WorkerError
from daemon.config import Config
from daemon.invariants import violations
from daemon.loop import Loop
from daemon.messages import Build, Built
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store, facts


class Quiet:
    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: None


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path)


@pytest.fixture
def made(state: State) -> Iterator[Service]:
    with state.store() as store:
        yield Service(state, store, state.config(), Quiet(), Asked(30))


def build_with(made: Service, monkeypatch: pytest.MonkeyPatch, builder: Any) -> None:
    monkeypatch.setattr(made, "_request", lambda request, expect, minutes: builder(request))


def test_s11_a_disk_that_is_full_for_a_while_costs_a_wait_and_no_fact(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact = add_fact(made.store, "Italy", "Draghi")
    build_with(made, monkeypatch, Builder())
    later = service.now()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.cycle.publish", full)
        with pytest.raises(OSError, match="No space"):
            made.work()
        assert states(made.store) == {fact: "batched"}
        assert made.work() is False  # tidied up, and not due
    (one,) = attempts.waiting(made.store)
    assert (one.facts, one.attempts) == (1, 1)
    assert "No space left" in one.error
    monkeypatch.setattr(service, "now", lambda: later + timedelta(hours=1))
    assert made.work() is True
    assert states(made.store) == {fact: "promoted"}


def test_facts_are_built_although_the_embedder_can_not_start(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved = add_fact(made.store, "Italy", "Draghi")
    received = add_fact(made.store, "Peru", "Sagasti", "received")
    builder = Builder()

    def request(asked: Any, expect: object, minutes: float) -> Any:
        if asked.kind != "build":
            raise WorkerError("worker.failed", "no such model")
        return builder(asked)

    monkeypatch.setattr(made, "_request", request)
    assert made.work() is True
    assert states(made.store) == {approved: "promoted", received: "received"}
    with pytest.raises(WorkerError, match="no such model"):
        made.work()


def test_nothing_new_is_asked_of_the_worker_once_a_stop_was_asked_for(made: Service) -> None:
    fact = add_fact(made.store, "Italy", "Draghi")
    made.asked.stop()
    with pytest.raises(WorkerError) as caught:
        made.work()
    assert caught.value.is_stop
    assert states(made.store) == {fact: "approved"}


def test_the_worker_reads_the_configuration_in_force_not_the_file_of_the_moment(
    made: Service, state: State
) -> None:
    from daemon import config as configuration

    state.config_file.write_text("[model]\nname = 1\n", "utf-8")
    assert configuration.load(state.running_file) == made.config
    assert made.reload() is False
    assert isinstance(made.config, Config)


def test_a_start_after_the_clock_was_set_back_lets_everything_be_due(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(store: Store) -> str:
        (found,) = store.rows("SELECT next_poll_at FROM source")
        return str(found[0])

    there = service.now()
    tomorrow = there + timedelta(days=1)
    with made.store.write():
        at = tomorrow.isoformat(timespec="microseconds")
        values = {"name": "a", "kind": "log", "location": "x", "tier": "normal"}
        made.store.insert("source", {**values, "next_poll_at": at, "created_at": at})
    monkeypatch.setattr(service, "now", lambda: there)
    made.start()
    assert row(made.store) == at  # nothing says that the clock was set
    with made.store.write():
        made.store.event("test", "test", {}, tomorrow)
    made.start()
    assert row(made.store) == there.isoformat(timespec="microseconds")


class Signalled(Builder):
    """The daemon is asked to stop while this builds."""

    asked: Asked

    def __call__(self, request: Build) -> Built:
        self.asked.stop()
        return super().__call__(request)


def signalled(made: Service, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Signalled:
    builder = Signalled(**how)
    builder.asked = made.asked

    class Child:
        def request(self, request: Any, expect: object, budget: float, report: object) -> Any:
            return builder(request)

    monkeypatch.setattr(made, "_worker", Child())
    return builder


def test_s03_a_build_that_ends_within_the_grace_is_promoted(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact = add_fact(made.store, "Italy", "Draghi")
    signalled(made, monkeypatch)
    assert made.work() is True
    assert states(made.store) == {fact: "promoted"}


def test_s03_no_second_build_is_begun_within_the_grace(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (add_fact(made.store, place, "Ada") for place in ("Italy", "Peru"))
    builder = signalled(made, monkeypatch, wrong={bad})
    with pytest.raises(WorkerError) as caught:
        made.work()
    assert caught.value.is_stop
    assert len(builder.requests) == 1
    assert states(made.store) == {good: "approved", bad: "approved"}
    assert [f.attempts for f in facts.in_states(made.store, ("approved",))] == [0, 1]


class Remembers:
    """A log of names and errors."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((event, str(fields.get("error"))))


def test_s11_a_database_without_room_degrades_the_daemon_until_there_is_some(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own limit on pages stands for a full disk: the same error from the same place."""
    with state.store() as store:
        fact = add_fact(store, "Italy", "Draghi")
        log, settings = Remembers(), config(state)
        made = Service(state, store, settings, log, Asked(30))
        build_with(made, monkeypatch, Builder())
        loop = Loop(made, made.asked, service.STAGES, log, service.now)
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            for number in range(10_000):  # what room there is in the pages is used up
                with store.write():
                    store.event("test.fill", "test", {"n": number, "x": "x" * 300}, START)
        for stage in ("ingest", "read", "edit"):
            loop.ticks.flag(stage)
        loop.step()
        assert any(name == "work.failed" and "full" in error for name, error in log.lines)
        assert states(store)[fact] != "promoted"
        store.connection.execute("PRAGMA max_page_count = 1000000")
        for _ in range(3):
            loop.ticks.flag("edit")
            loop.step()
        assert states(store) == {fact: "promoted"}
        assert violations(state, store) == []
