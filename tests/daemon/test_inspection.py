"""Once a week a daemon looks for damage, before what is damaged is needed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from test_link_and_row import Said
from world import START, Builder, Clock, add_fact, config, new_state

from daemon import inspection, releases, service, status
from daemon.cycle import cycle
from daemon.errors import IntegrityError
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import FILE, Store
from wise import manifest

DAY = timedelta(days=1)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Releases 1 to 3 were promoted one after the other."""
    made = new_state(tmp_path)
    with made.store() as opened:
        for name in ("Italy", "Peru", "Chad"):
            add_fact(opened, name, "Ada")
            assert cycle(made, opened, config(made), Builder(), Clock()) is not None
    return made


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        yield opened


def damage(state: State, store: Store, number: int) -> Path:
    """Change a byte of a release; the file."""
    folder = releases.folder_of(state, releases.get(store, number))
    assert folder is not None
    path = folder / "facts.jsonl"
    path.chmod(0o600)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    return path


def working(state: State, store: Store, days: float) -> Said:
    """A daemon starts and works once, so many days after the state was made; what it logs."""
    log = Said()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "now", lambda: START + days * DAY)
        made = Service(state, store, state.config(), log, Asked(30))
        made.start()
        made.work()
    return log


def damaged(log: Said) -> list[str]:
    return [fields["what"] for event, fields in log.lines if event == "state.damaged"]


def looks(store: Store) -> int:
    return len(store.rows("SELECT 1 FROM event WHERE action = ?", inspection.INSPECTED))


def test_a_sound_state_is_looked_through_once_a_week(state: State, store: Store) -> None:
    for days, so_far in ((0, 0), (6.9, 0), (7.1, 1), (13.9, 1), (14.2, 2)):
        assert damaged(working(state, store, days)) == []
        assert looks(store) == so_far, days


def test_a_clock_that_ran_ahead_does_not_put_it_off(state: State, store: Store) -> None:
    working(state, store, 400)
    assert inspection.is_due(store, START + 8 * DAY)


def test_damage_to_a_release_to_go_back_to_is_found_and_told_until_it_is_mended(
    state: State, store: Store
) -> None:
    path = damage(state, store, 2)
    assert damaged(working(state, store, 6)) == []
    (found,) = damaged(working(state, store, 8))
    assert "release 2" in found and "facts.jsonl" in found
    seen = status.read(state, store, START)
    assert seen.problems == (f"damaged: {found}",)
    assert (seen.release.number, dict(seen.holds)) == (3, {})
    path.write_bytes(b"{" + path.read_bytes()[1:])
    assert damaged(working(state, store, 8.1)) == []
    assert status.read(state, store, START).problems == ()


def test_damage_that_stays_is_looked_at_daily(state: State, store: Store) -> None:
    damage(state, store, 2)
    working(state, store, 8)
    assert not inspection.is_due(store, START + 8.9 * DAY)
    assert inspection.is_due(store, START + 9.1 * DAY)


def test_a_release_that_can_not_be_read_is_told_and_stops_nothing(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, read = releases.folder_of(state, releases.get(store, 1)), manifest.file_sha256

    def failing_disk(path: Path) -> str:
        if path.parent == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(manifest, "file_sha256", failing_disk)
    for days in (8, 8.1, 9.2):
        damage_found = damaged(working(state, store, days))
        assert all("release 1 can't be read" in one for one in damage_found)
    assert looks(store) == 3
    assert status.read(state, store, START).problems[0].startswith("damaged: release 1")
    assert releases.promoted(store).number == 3


def test_the_release_that_answers_gives_way_when_it_is_damaged(state: State, store: Store) -> None:
    log = Said()
    made = Service(state, store, state.config(), log, Asked(30))
    damage(state, store, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "now", lambda: START + 8 * DAY)
        made.work()
    assert len(damaged(log)) == 1
    assert releases.promoted(store).number == 2
    assert "promote" in releases.holds(store)


def test_a_damaged_database_stops_the_work_and_is_looked_at_again(state: State) -> None:
    with state.store() as store:
        (root,) = store.one("SELECT rootpage FROM sqlite_schema WHERE name = 'fact_by_state'") or ()
        (size,) = store.one("PRAGMA page_size") or ()
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (state.folder / FILE).open("r+b") as file:
        file.seek((root - 1) * size + 3)
        file.write(b"\xff\xff")  # the page's number of cells
    with state.store() as store:
        for _ in range(2):
            with pytest.raises(IntegrityError, match="database is damaged") as caught:
                inspection.inspect(state, store, START + 8 * DAY)
            assert "wised db backup" in caught.value.hint
            assert inspection.is_due(store, START + 8 * DAY)
