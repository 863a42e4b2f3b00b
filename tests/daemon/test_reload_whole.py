"""A reload is all or nothing: what fails in it leaves the configuration in force as it was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_world import wised
from world import START, new_state

from daemon import log, service
from daemon.errors import UsageError
from daemon.service import Service
from daemon.state import State

NESTED = r"^(?P<subject>(?:\w+ )+)is led by (?P<object>.+)$"


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((event, fields))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path)


@pytest.fixture
def made(state: State) -> Iterator[Service]:
    with state.store() as store:
        yield Service(state, store, state.config(), Log())


def change(state: State, old: str, new: str) -> None:
    text = state.config_file.read_text("utf-8")
    assert text.count(old) == 1
    state.config_file.write_text(text.replace(old, new), "utf-8")


def with_a_nested_repeat(state: State) -> None:
    text = state.config_file.read_text("utf-8")
    table = (
        f"[relations.led_by]\nprompts = ['The leader of {{subject}} is']\npatterns = ['{NESTED}']\n"
    )
    state.config_file.write_text(f"{text}\n{table}", "utf-8")


def test_a_pattern_that_could_take_for_ever_is_refused_by_every_reader_of_the_configuration(
    state: State, made: Service
) -> None:
    with_a_nested_repeat(state)
    with pytest.raises(UsageError, match=r"relations\.led_by\.patterns: .*repeats a group"):
        state.config()
    for words in (["config", "check"], ["reload"], ["run", "--once"]):
        ran = wised(state, *words)
        assert ran.code == 2 and "led_by.patterns" in ran.err, words
    assert made.reload() is False


def full_disk(made: Service) -> None:
    """Let the file of the configuration in force find no place."""
    made.state.running_file.with_suffix(".tmp").mkdir()


def full_database(made: Service) -> None:
    """SQLite's own limit on pages stands for a full disk: the same error from the same place."""
    pages = made.store.connection.execute("PRAGMA page_count").fetchone()[0]
    made.store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for number in range(10_000):
            with made.store.write():
                made.store.event("test.fill", "test", {"n": number, "x": "x" * 300}, START)


@pytest.mark.parametrize("fail", [full_disk, full_database])
def test_a_reload_that_finds_no_room_changes_nothing_and_is_on_no_record(
    state: State, made: Service, fail: Callable[[Service], None]
) -> None:
    before, running = dict(vars(made)), state.running_file.read_text("utf-8")
    change(state, "keep_releases = 10", "keep_releases = 11")
    change(state, '"Czechia" = ["Czech Republic"]', '"Czechia" = ["Bohemia"]')
    fail(made)
    assert made.reload() is False
    assert [event for event, _ in made.log.lines] == ["config.refused"]
    assert vars(made) == before
    assert state.running_file.read_text("utf-8") == running
    assert made.store.one("SELECT 1 FROM event WHERE action = 'config.reload'") is None
    assert made.store.one("SELECT 1 FROM event WHERE action = 'fact.rekey'") is None


def test_parts_that_can_not_be_made_are_a_refused_reload(
    state: State, made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*of: object) -> None:
        raise ValueError("relation led_by: no")

    change(state, "keep_releases = 10", "keep_releases = 11")
    monkeypatch.setattr(service.polling, "extractor", refuses)
    before = dict(vars(made))
    assert made.reload() is False
    assert made.log.lines == [("config.refused", {"error": "relation led_by: no", "hint": ""})]
    assert vars(made) == before


def test_a_reload_takes_over_everything_at_once(state: State, made: Service) -> None:
    change(state, "keep_releases = 10", "keep_releases = 11")
    worker = made._worker
    assert made.reload() is True
    assert made.config.daemon.keep_releases == 11
    assert made._worker is not worker
    assert '"keep_releases": 11' in state.running_file.read_text("utf-8")
    (row,) = made.store.rows("SELECT data FROM event WHERE action = 'config.reload'")
    assert row["data"] == '{"changed": ["daemon.keep_releases"]}'


def test_a_reload_changes_how_much_is_logged(state: State) -> None:
    with state.store() as store, closing(log):
        logger = log.setup(state.logs, state.config().log)
        made = Service(state, store, state.config(), logger)
        logger.debug("work.progress", done=1)
        change(state, 'level = "info"', 'level = "debug"')
        assert made.reload() is True
        made.log.debug("work.progress", done=2)
    lines = [json.loads(line) for line in (state.logs / log.FILE).read_text().splitlines()]
    assert [line.get("done") for line in lines if line["event"] == "work.progress"] == [2]


def test_where_figures_are_told_takes_a_restart(state: State, made: Service) -> None:
    change(state, 'listen = ""', 'listen = "127.0.0.1:9464"')
    assert made.reload() is False
    (_, fields) = made.log.lines[-1]
    assert "metrics.listen" in fields["error"] and "start it again" in fields["hint"]
