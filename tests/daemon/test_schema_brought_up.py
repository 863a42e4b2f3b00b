"""Who brings a database up to date: the daemon that is to run on it, and nobody beside one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cli_world import wised
from world import START, new_state

from daemon import service
from daemon.errors import IntegrityError, NotRunning
from daemon.state import State, init
from daemon.store import FILE, database
from daemon.store.schema import MIGRATIONS

COMMANDS = [
    ("fact", "add", "Italy", "head_of_government", "Mario Draghi"),
    ("pause", "edit"),
    ("source", "add", "feed", "https://example.org/feed", "--dry-run"),
    ("db", "vacuum"),
]


@pytest.fixture
def older(tmp_path: Path) -> State:
    """A state as the wised before this one made it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", MIGRATIONS[:-1])
        return new_state(tmp_path)


def version(state: State) -> int:
    raw = sqlite3.connect(state.folder / FILE)
    try:
        return int(raw.execute("PRAGMA user_version").fetchone()[0])
    finally:
        raw.close()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_a_newer_wised_leaves_an_older_daemons_schema_alone(
    older: State, words: tuple[str, ...]
) -> None:
    with older.lock():
        ran = wised(older, *words)
    assert (ran.code, ran.out) == (IntegrityError.exit_code, "")
    assert "wised run brings it up to date" in ran.err
    assert version(older) == len(MIGRATIONS) - 1


def test_a_start_brings_it_up_and_commands_go_on(older: State) -> None:
    assert service.run(older, once=True) == 0
    assert version(older) == len(MIGRATIONS)
    assert wised(older, *COMMANDS[0]).code == 0


def test_a_start_beside_another_daemon_brings_nothing_up(older: State) -> None:
    with older.lock(), pytest.raises(NotRunning, match="another wised runs"):
        service.run(older, once=True)
    assert version(older) == len(MIGRATIONS) - 1


def test_making_a_state_anew_brings_it_up_unless_a_daemon_runs(older: State) -> None:
    with older.lock(), pytest.raises(IntegrityError, match=f"this wised knows {len(MIGRATIONS)}"):
        init(older.folder, START)
    assert version(older) == len(MIGRATIONS) - 1
    init(older.folder, START)
    assert version(older) == len(MIGRATIONS)
