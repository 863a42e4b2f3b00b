"""What fails at one source costs that source alone: the others are polled in the same round."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from world import START, new_state

from daemon import polling, releases, service
from daemon.service import Service
from daemon.store import timestamp
from ingest import IngestError, Poll


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.lines if name == event]


class Place:
    """A daemon whose sources are logs, polled by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, Log()
        state = new_state(folder)
        self.store = state.store()
        self.service = Service(state, self.store, state.config(), self.log)

    def add(self, name: str) -> Path:
        """Add a log in a folder of its own, with a row."""
        path = self.folder / name / "corrections.jsonl"
        path.parent.mkdir()
        self.say(path, name)
        at = timestamp(START)
        row = {"name": name, "kind": "log", "location": str(path), "tier": "normal"}
        self.store.insert("source", {**row, "next_poll_at": at, "created_at": at})
        return path

    def say(self, path: Path, subject: str) -> None:
        with path.open("a") as file:
            file.write(json.dumps({"subject": subject, "relation": "capital", "object": "X"}))
            file.write("\n")

    def poll(self) -> None:
        """Let every source be due, and poll."""
        self.store.connection.execute("UPDATE source SET next_poll_at = ?", (timestamp(START),))
        self.service.poll_due()

    def failures(self) -> dict[str, int]:
        rows = self.store.rows("SELECT name, failures FROM source")
        return {row["name"]: row["failures"] for row in rows}

    def subjects(self) -> list[str]:
        return [row["subject"] for row in self.store.rows("SELECT subject FROM fact ORDER BY id")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.service.close()
    made.store.close()


def fails(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let the polls of one source raise."""
    real = polling.fetch

    def fetch(source: polling.Source, *more: Any) -> Poll:
        if source.name == name:
            raise error
        return real(source, *more)

    monkeypatch.setattr(polling, "fetch", fetch)


def test_a_log_whose_folder_is_gone_does_not_keep_others_from_being_polled(place: Place) -> None:
    gone, there = place.add("gone"), place.add("there")
    place.poll()
    gone.unlink()
    gone.parent.rmdir()
    place.say(there, "Peru")
    place.poll()
    assert place.failures() == {"gone": 1, "there": 0}
    assert "Peru" in place.subjects()
    (failed,) = place.log.of("source.failed")
    assert failed["error"].startswith("log.missing")
    row = place.store.one("SELECT next_poll_at FROM source WHERE name = 'gone'")
    assert row is not None
    assert datetime.fromisoformat(row["next_poll_at"]) > datetime.now(UTC) + timedelta(seconds=50)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("https://user:hunter2@host/ is odd"), "poll.bug"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), "poll.bug"),
        (OSError(24, "Too many open files"), "poll.system"),
    ],
)
def test_an_error_that_nobody_foresaw_is_logged_with_its_traceback_and_costs_its_source_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    place.add("bad")
    place.add("good")
    fails(monkeypatch, "bad", error)
    place.poll()
    assert place.failures() == {"bad": 1, "good": 0}
    assert place.subjects() == ["good"]
    (line,) = place.log.of("poll.broke_off")
    assert line["error"].startswith(code) and "hunter2" not in line["error"]
    assert type(error).__name__ in line["exception"] and "in fetch" in line["exception"]
    row = place.store.one("SELECT last_error FROM source WHERE name = 'bad'")
    assert row is not None and row["last_error"] == line["error"]


def test_what_can_not_be_stored_of_a_source_is_its_own_failure_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone surrogate is text to Python and none to SQLite."""
    from ingest import DeadLetter

    def fetch(source: polling.Source, *more: Any) -> Poll:
        return Poll(dead=(DeadLetter("1", "x", "\ud800", ""),))

    place.add("bad")
    monkeypatch.setattr(polling, "fetch", fetch)
    place.poll()
    assert place.failures() == {"bad": 1}
    assert place.store.one("SELECT 1 FROM dead_letter") is None
    assert not place.store.connection.in_transaction


def test_a_database_that_fails_is_no_sources_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add("good")
    fails(monkeypatch, "good", sqlite3.OperationalError("database is locked"))
    with pytest.raises(sqlite3.OperationalError):
        place.poll()
    assert place.failures() == {"good": 0}


def test_a_poll_that_hangs_is_given_up_and_not_begun_again_while_it_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read from a network mount whose server is gone; nothing can end its thread."""
    place.add("hangs")
    place.add("there")
    released, begun, real = threading.Event(), list[str](), polling.fetch

    def fetch(source: polling.Source, *more: Any) -> Poll:
        begun.append(source.name)
        if source.name == "hangs":
            released.wait(20)
        return real(source, *more)

    monkeypatch.setattr(polling, "fetch", fetch)
    monkeypatch.setattr(service, "POLL_GRACE_SECONDS", 0.3 - 60)
    place.poll()
    place.poll()
    assert begun == ["hangs", "there", "there"]
    assert place.failures() == {"hangs": 2, "there": 0}
    errors = [line["error"] for line in place.log.of("source.failed")]
    assert [error.partition(":")[0] for error in errors] == ["poll.hangs"] * 2
    assert place.subjects() == ["there"]
    released.set()
    (left,) = place.service._patience._left.values()
    left.join()
    place.poll()
    assert place.failures() == {"hangs": 0, "there": 0}
    assert sorted(place.subjects()) == ["hangs", "there"]


def test_the_main_loop_beats_while_a_slow_source_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add("slow")
    seen = []

    def fetch(source: polling.Source, *more: Any) -> Poll:
        for _ in range(2):
            time.sleep(0.3)
            seen.append(place.service.pulse.read().beats["control"])
        raise IngestError("fetch.timeout", "too slow")

    monkeypatch.setattr(polling, "fetch", fetch)
    place.poll()
    assert seen[0] < seen[1]


def test_a_hold_on_ingest_holds_from_the_next_source_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add("first")
    place.add("second")
    real = polling.fetch

    def fetch(source: polling.Source, *more: Any) -> Poll:
        with place.service.state.store("operator:ada") as store, store.write():
            releases.hold(store, "ingest", "stop", START)
        return real(source, *more)

    monkeypatch.setattr(polling, "fetch", fetch)
    place.poll()
    assert [one["source"] for one in place.log.of("source.polled")] == ["first"]
