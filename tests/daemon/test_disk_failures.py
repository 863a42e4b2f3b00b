"""C3-C5: a disk that is full, fails, or loses what was not synced, at every step of a cycle."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import Builder, Clock, add_fact, config, new_state, states

from daemon import releases
from daemon.cycle import cycle
from daemon.errors import WisedError
from daemon.invariants import violations
from daemon.state import State
from daemon.store import Store, facts

#: as many as a cycle takes; a test that has not failed by then asserts that it got through
FILE_STEPS, STATEMENTS, SYNCS = range(1, 33), range(1, 65), range(1, 13)


class Failing:
    """Calls that fail: number ``first``, or from it on."""

    def __init__(self, first: int, error: Callable[[], Exception], *, lasts: bool) -> None:
        self.left, self.error, self.lasts, self.failed = first, error, lasts, False

    def step(self) -> None:
        """Count one call, and fail if it is its turn."""
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.lasts):
            self.failed = True
            raise self.error()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> State:
    state = new_state(tmp_path_factory.mktemp("base"))
    with state.store() as store:
        add_fact(store, "Italy", "Draghi")
        assert turn(state, store) == "promoted"
        add_fact(store, "Italy", "Meloni")
        add_fact(store, "Peru", "Sagasti")
    return state


@pytest.fixture
def state(base: State, tmp_path: Path) -> State:
    """A state of which a first release is promoted, and two facts wait."""
    shutil.copytree(base.folder, tmp_path / "state", symlinks=True)
    return State(tmp_path / "state")


def turn(state: State, store: Store) -> str | None:
    done = cycle(state, store, config(state), Builder(), Clock())
    return done.outcome if done else None


def recovers(state: State) -> None:
    """Go on as a daemon does after a failure; all is as if there had been none."""
    with state.store() as store:
        releases.reconcile(state, store, Clock()())
        while turn(state, store) is not None:
            pass
        assert violations(state, store) == []
        held = facts.of_release(store, releases.promoted(store).number)
        assert {f.subject: f.object for f in held} == {"Italy": "Meloni", "Peru": "Sagasti"}
        assert sorted(states(store).values()) == ["promoted", "promoted", "superseded"]


@contextlib.contextmanager
def failing_files(state: State, failing: Failing) -> Iterator[None]:
    """Let the calls that write below the state's releases fail, and links and renames there."""
    plain_open = builtins.open

    class Writer(io.FileIO):
        def write(self, data: object) -> int:
            failing.step()
            return super().write(data)  # type: ignore[arg-type]

    def opened(file: object, mode: str = "r", *args: object, **more: object) -> object:
        if isinstance(file, (str, Path)) and "w" in mode and str(state.releases) in str(file):
            failing.step()
            raw = Writer(str(file), mode.replace("b", "").replace("t", ""))
            buffer = io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding="utf-8")
        return plain_open(file, mode, *args, **more)  # type: ignore[call-overload]

    def first(original: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **more: object) -> object:
            failing.step()
            return original(*args, **more)

        return act

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        for name in ("fsync", "rename", "replace", "symlink", "mkdir", "chmod"):
            patch.setattr(os, name, first(getattr(os, name)))
        yield


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def broken() -> OSError:
    return OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("error", [no_space, broken])
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for a while"])
@pytest.mark.parametrize("step", FILE_STEPS)
def test_c03_a_write_that_fails_at_any_step_is_made_good(
    state: State, step: int, lasts: bool, error: Callable[[], OSError]
) -> None:
    failing = Failing(step, error, lasts=lasts)
    told = contextlib.suppress(OSError, WisedError)
    with state.store() as store, failing_files(state, failing), told:
        turn(state, store)
    recovers(state)


def test_c03_the_steps_that_fail_are_all_that_there_are(state: State) -> None:
    failing = Failing(10**6, no_space, lasts=False)
    with state.store() as store, failing_files(state, failing):
        assert turn(state, store) == "promoted"
    assert 10 < 10**6 - failing.left <= FILE_STEPS[-1]


class Flaky(sqlite3.Connection):
    """A connection whose statements fail when a test says so."""

    failing: Failing | None = None

    def execute(self, *args: object) -> sqlite3.Cursor:  # type: ignore[override]
        _may_fail(str(args[0]))
        return super().execute(*args)  # type: ignore[arg-type]

    def executemany(self, *args: object) -> sqlite3.Cursor:  # type: ignore[override]
        _may_fail(str(args[0]))
        return super().executemany(*args)  # type: ignore[arg-type]


def _may_fail(statement: str) -> None:
    # What takes a failed transaction back has to work: SQLite does it even on a full disk.
    if Flaky.failing and not statement.startswith(("ROLLBACK", "PRAGMA", "SELECT")):
        Flaky.failing.step()


@contextlib.contextmanager
def failing_statements(failing: Failing) -> Iterator[None]:
    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Flaky, **k))
        Flaky.failing = failing
        try:
            yield
        finally:
            Flaky.failing = None


def full() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for a while"])
@pytest.mark.parametrize("step", STATEMENTS)
def test_c04_a_statement_that_fails_at_any_step_is_made_good(
    state: State, step: int, lasts: bool
) -> None:
    failing = Failing(step, full, lasts=lasts)
    with (
        failing_statements(failing),
        contextlib.suppress(sqlite3.OperationalError, WisedError),
        state.store() as store,
    ):
        turn(state, store)
    recovers(state)


def test_c04_the_statements_that_fail_are_all_that_there_are(state: State) -> None:
    failing = Failing(10**6, full, lasts=False)
    with failing_statements(failing), state.store() as store:
        assert turn(state, store) == "promoted"
    assert 40 < 10**6 - failing.left <= STATEMENTS[-1]


class PowerCut(BaseException):
    """The power goes: nothing in the project may catch it."""


def files_of(state: State) -> list[Path]:
    return [path for path in state.releases.rglob("*") if path.is_file()]


class Disk:
    """What of the releases' files is on the disk for sure: what was synced.

    What there is when it is made was synced long ago.
    """

    def __init__(self, state: State) -> None:
        self.root = state.releases
        self.synced = {p.stat().st_ino: p.read_bytes() for p in files_of(state)}  #: by inode
        #: not synced: from where, to where, and where a link led that was there before
        self.renamed: list[tuple[Path, Path, str | None]] = []

    def fsync(self, handle: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if place.is_file() and place.is_relative_to(self.root):
            self.synced[place.stat().st_ino] = place.read_bytes()
        self.renamed = [one for one in self.renamed if one[1].parent != place]

    def rename(self, old: Path, new: Path) -> None:
        self.renamed.append((old, new, os.readlink(new) if new.is_symlink() else None))

    def cut(self) -> None:
        """Leave the releases with what was synced of them and nothing else.

        A rename may be lost until its folder is synced, a file's data until the file is.
        """
        for old, new, before in reversed(self.renamed):
            new.rename(old)
            if before is not None:
                new.symlink_to(before)
        for path in [p for p in self.root.rglob("*") if p.is_file()]:
            data = self.synced.get(path.stat().st_ino, b"")
            path.parent.chmod(0o700)
            path.chmod(0o600)
            path.write_bytes(data)


HANDLES = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="asks /proc which file a handle is"
)


@HANDLES
@pytest.mark.parametrize("step", SYNCS)
def test_c05_a_power_cut_leaves_no_release_whose_files_were_not_synced(
    state: State, step: int
) -> None:
    disk = Disk(state)
    with state.store() as store, power(disk, step):
        try:
            turn(state, store)
        except PowerCut:
            was_cut = True
        else:
            was_cut = False
    assert was_cut == (step != SYNCS[-1]), "the last step that is tried is one more than there are"
    disk.cut()
    recovers(state)


@contextlib.contextmanager
def power(disk: Disk, lasts: int) -> Iterator[None]:
    """Tell the disk of what is synced and renamed, and let the power go at step ``lasts``."""
    left = [lasts]

    def counted(original: Callable[..., object], tell: Callable[..., None]) -> Callable[..., None]:
        def act(*args: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise PowerCut
            tell(*args)
            original(*args)

        return act

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync, disk.fsync))
        for name in ("rename", "replace"):
            patch.setattr(os, name, counted(getattr(os, name), disk.rename))
        yield


@HANDLES
@pytest.mark.parametrize("place", ["daemon.publish.sync_folder", "wise.manifest._fsync"])
def test_c05_without_syncing_a_power_cut_would_be_seen(
    state: State, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The model of a power cut is worth something: it damages what was not synced."""
    disk = Disk(state)
    monkeypatch.setattr(place, lambda path: None)
    with state.store() as store:
        with power(disk, 10**6):
            assert turn(state, store) == "promoted"
        assert violations(state, store) == []
        disk.cut()
        assert any("release 2" in one for one in violations(state, store))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "torn": lambda p: (p / "facts.jsonl").write_bytes((p / "facts.jsonl").read_bytes()[:-7]),
    "flipped": lambda p: (p / "adapter_model.safetensors").write_bytes(b"\1" + bytes(7)),
    "missing": lambda p: (p / "README.md").unlink(),
    "more": lambda p: (p / "evil.py").write_text("print()"),
    "another's manifest": lambda p: (p / "manifest.json").write_bytes(
        next(o for o in p.parent.iterdir() if o != p).joinpath("manifest.json").read_bytes()
    ),
    "a link for a file": lambda p: (
        (p / "facts.jsonl").unlink(),
        (p / "facts.jsonl").symlink_to("/etc/passwd"),
    ),
    "gone": lambda p: shutil.rmtree(p),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_c06_a_damaged_release_gives_way_to_the_one_before_and_says_so(
    state: State, damage: Callable[[Path], object]
) -> None:
    with state.store() as store:
        assert turn(state, store) == "promoted"
        place = releases.folder_of(state, releases.promoted(store))
        assert place is not None
        place.chmod(0o700)
        for path in place.iterdir():
            path.chmod(0o600)
        damage(place)
        notes = releases.reconcile(state, store, Clock()())
        assert any("went back to release 1" in note for note in notes)
        assert releases.promoted(store).number == 1
        assert "promote" in releases.holds(store)
        assert os.readlink(state.current) == os.path.relpath(
            releases.folder_of(state, releases.get(store, 1)) or "", state.folder
        )


@pytest.mark.parametrize("target", ["releases/nowhere", "/etc", "../.."])
def test_c06_a_current_link_that_leads_astray_is_set_right(state: State, target: str) -> None:
    with state.store() as store:
        state.current.unlink()
        state.current.symlink_to(target)
        assert any("current points to" in one for one in violations(state, store))
        releases.reconcile(state, store, Clock()())
        assert (state.current / "manifest.json").exists()
