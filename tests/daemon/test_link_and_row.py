"""The link `current` follows the row of the promoted release, whatever kept it from that."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import wised
from world import Builder, Clock, add_fact, config, new_state

from daemon import releases
from daemon.cycle import cycle
from daemon.errors import WisedError
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store


class Said:
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((event, fields))


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Releases 1 and 2 were promoted one after the other."""
    made = new_state(tmp_path)
    with made.store() as opened:
        for name in ("Italy", "Peru"):
            add_fact(opened, name, "Ada")
            cycle(made, opened, config(made), Builder(), Clock())
    return made


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        yield opened


def linked(state: State) -> int:
    """The release that the link names."""
    return int(Path(os.readlink(state.current)).name[:6])


def no_space(*args: object, **more: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def roll_back_without_link(state: State, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "symlink", no_space)
        with pytest.raises(WisedError, match="release 1 answers by the records") as caught:
            releases.rollback(state, store, 1, Clock()(), "wrong capital")
    assert "wised release promote 1" in caught.value.hint
    assert (releases.promoted(store).number, linked(state)) == (1, 2)


@pytest.mark.parametrize("again", [("rollback", "--to", "1"), ("release", "promote", "1")])
def test_a_rollback_whose_link_failed_is_made_good_by_repeating_it(
    state: State, store: Store, again: tuple[str, ...]
) -> None:
    roll_back_without_link(state, store)
    assert wised(state, *again).rows == [["release 1", "already_promoted"]]
    assert linked(state) == 1


def test_a_running_daemon_sets_the_link_right_and_says_so(state: State, store: Store) -> None:
    roll_back_without_link(state, store)
    log = Said()
    made = Service(state, store, state.config(), log, Asked(30))
    with store.write():
        releases.hold(store, "edit", "whatever is held", Clock()())
    made.work()
    assert linked(state) == 1
    assert log.lines == [("state.reconciled", {"what": "let the link current name release 1"})]
    made.work()
    assert len(log.lines) == 1


def test_a_start_says_that_it_set_the_link_right(state: State, store: Store) -> None:
    roll_back_without_link(state, store)
    notes = releases.reconcile(state, store, Clock()())
    assert notes == ["let the link current name release 1"]
    assert releases.reconcile(state, store, Clock()()) == []


def test_the_link_of_the_bare_model_is_none(state: State, store: Store) -> None:
    releases.rollback(state, store, 0, Clock()(), "stop all")
    state.current.symlink_to("releases/nowhere")
    assert releases.mend_link(state, store) == ["let the link current name release 0"]
    assert not state.current.is_symlink()


def test_of_two_promotions_at_once_the_later_row_has_the_link(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stands just before it sets the link; the second may not overtake it there."""
    reached, go_on = threading.Event(), threading.Event()
    symlink = os.symlink

    def waits(*args: Any, **more: Any) -> None:
        if threading.current_thread() is slow:
            reached.set()
            go_on.wait(0.5)  # it ends without being told: the other waits for this one
        symlink(*args, **more)

    def roll_back() -> None:
        with state.store() as own:
            releases.rollback(state, own, 1, Clock()(), "wrong capital")

    slow = threading.Thread(target=roll_back)
    monkeypatch.setattr(os, "symlink", waits)
    slow.start()
    assert reached.wait(5)
    releases.promote(state, store, 2, Clock()(), "it was right")
    go_on.set()
    slow.join()
    assert (releases.promoted(store).number, linked(state)) == (2, 2)
