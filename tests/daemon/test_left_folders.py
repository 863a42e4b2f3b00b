"""Folders of releases that nothing can go back to do not stay."""

from __future__ import annotations

import os
import sqlite3
from datetime import timedelta

import pytest
from cli_world import wised
from world import START, Builder, Clock, add_fact, config

from daemon import releases
from daemon.cycle import cycle
from daemon.state import State
from daemon.store import Store


def turn(state: State, store: Store) -> str | None:
    done = cycle(state, store, config(state), Builder(), Clock())
    return done.outcome if done else None


def folders(state: State) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in state.releases.iterdir())


def overtaken(state: State, store: Store) -> None:
    """A verified candidate, one of whose facts is retracted while a hold keeps it back."""
    gone = add_fact(store, "Italy", "Draghi")
    with store.write():
        releases.hold(store, "promote", "look first", START)
    assert turn(state, store) == "verified"
    with store.write():
        store.transition("fact", gone, "retract", START, "wrong")
        releases.unhold(store, "promote", START)


def test_a_candidate_that_was_overtaken_leaves_no_files(state: State, store: Store) -> None:
    overtaken(state, store)
    assert folders(state) == ["000001"]
    assert turn(state, store) == "refused"
    assert folders(state) == []
    ran = wised(state, "release", "verify", "1")
    assert (ran.code, "release 1 was refused: its files are gone" in ran.err) == (4, True)


def test_what_a_crash_left_of_a_refused_candidate_goes_at_the_next_start(
    state: State, store: Store
) -> None:
    overtaken(state, store)
    with store.write():
        store.transition("release", 1, "refuse", START, "the daemon died right after this")
    assert releases.reconcile(state, store, START) == []
    assert folders(state) == []


def test_builds_whose_last_step_fails_again_and_again_leave_one_copy(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fact(store, "Italy", "Draghi")

    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for number in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(releases, "hold_facts", full)
            with pytest.raises(sqlite3.OperationalError):
                turn(state, store)
        releases.reconcile(state, store, START)
        assert folders(state) == [".aside"]
        (left,) = state.releases.iterdir()
        assert left.name.startswith(f".aside-{number:06d}-")
    assert turn(state, store) == "promoted"


def test_folders_that_no_release_speaks_of_are_kept_for_a_week(state: State, store: Store) -> None:
    for name in ("000007-abc", "000008-def", "notes"):  # as a restored database may not know them
        (state.releases / name).mkdir()
        os.utime(state.releases / name, (0, 0))
    releases.reconcile(state, store, START)
    names = {".aside-000007-abc", ".aside-000008-def", ".aside-notes"}
    assert {path.name for path in state.releases.iterdir()} == names
    releases.reconcile(state, store, START + timedelta(days=7))
    assert {path.name for path in state.releases.iterdir()} == names
    notes = releases.reconcile(state, store, START + timedelta(days=7, seconds=1))
    assert set(notes) == {f"deleted {name}" for name in names}
    assert list(state.releases.iterdir()) == []
