"""What answers when the promoted release's files are damaged, or can't be read at a start."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from cli_world import wised
from world import Builder, Clock, add_fact, config

from daemon import releases
from daemon.cycle import cycle
from daemon.errors import NotReadable
from daemon.state import State
from daemon.store import Store
from wise import manifest


def grow(state: State, store: Store, *names: str) -> None:
    """Promote a release for each name."""
    for name in names:
        add_fact(store, name, "Ada")
        done = cycle(state, store, config(state), Builder(), Clock())
        assert done is not None and done.outcome == "promoted"


def folder(state: State, store: Store, number: int) -> Path:
    found = releases.folder_of(state, releases.get(store, number))
    assert found is not None
    return found


def damage(state: State, store: Store, number: int) -> None:
    (folder(state, store, number) / "README.md").unlink()


def answers(state: State, store: Store) -> int:
    """Which release answers after a start."""
    releases.reconcile(state, store, Clock()())
    return releases.promoted(store).number


def test_the_release_that_was_rolled_back_from_does_not_come_back(
    state: State, store: Store
) -> None:
    grow(state, store, "Italy", "Peru")
    releases.rollback(state, store, 1, Clock()(), "release 2 is wrong")
    damage(state, store, 1)
    assert answers(state, store) == 0
    assert not state.current.is_symlink()


def test_neither_does_one_that_a_later_release_has_passed_over(state: State, store: Store) -> None:
    grow(state, store, "Italy", "Peru")
    releases.rollback(state, store, 1, Clock()(), "release 2 is wrong")
    with store.write():
        releases.unhold(store, "promote", Clock()())
    grow(state, store, "Chad")
    assert releases.promoted(store).parent == 1
    damage(state, store, 3)
    assert answers(state, store) == 1


def test_damaged_ancestors_are_passed_over(state: State, store: Store) -> None:
    grow(state, store, "Italy", "Peru", "Chad")
    damage(state, store, 3), damage(state, store, 2)
    assert answers(state, store) == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("call", ["lstat", "open", "iterdir"])
def test_files_that_the_system_does_not_let_be_read_are_not_damaged(
    state: State, store: Store, code: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(state, store, "Italy", "Peru")
    refused, original = folder(state, store, 2), getattr(Path, call)

    def refuse(self: Path, *args: object, **more: object) -> object:
        if refused in (self, self.parent):
            raise OSError(code, os.strerror(code), str(self))
        return original(self, *args, **more)

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(NotReadable, match="release 2 can't be read") as told:
        releases.reconcile(state, store, Clock()())
    assert os.strerror(code) in str(told.value)
    assert "daemon's user" in told.value.hint
    assert releases.promoted(store).number == 2
    assert releases.holds(store) == {}


def test_a_start_that_may_not_read_its_release_ends_with_an_error_that_says_so(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(state, store, "Italy", "Peru")
    monkeypatch.setattr(manifest, "verify", refused)
    ran = wised(state, "run", "--once")
    assert ran.code == 1
    assert "Error: release 2 can't be read" in ran.err
    assert releases.promoted(store).number == 2


def refused(folder: Path) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_candidate_that_can_not_be_read_is_kept_for_another_try(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fact(store, "Italy", "Ada")
    with store.write():
        releases.hold(store, "promote", "look first", Clock()())
    cycle(state, store, config(state), Builder(), Clock())
    with store.write():
        releases.unhold(store, "promote", Clock()())

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "verify", refused)
        with pytest.raises(NotReadable):
            cycle(state, store, config(state), Builder(), Clock())
    assert releases.get(store, 1).state == "verified"
    cycle(state, store, config(state), Builder(), Clock())
    assert releases.promoted(store).number == 1
