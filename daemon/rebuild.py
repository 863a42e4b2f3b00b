"""Make a release again from the ledger: from its facts, settings and parent, byte for byte.

The parent is taken from disk when its files are the published ones, else it is made again first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from daemon import config as configuration
from daemon import plan, releases
from daemon.child import OnProgress, Worker
from daemon.errors import Conflict, IntegrityError
from daemon.messages import Build, Built
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store
from wise import manifest
from wise.format import CONFIG, TENSORS

#: the files that are a function of the ledger; the others tell of it, with times and evidence
MEMORY = (CONFIG, TENSORS)
BUDGET_SECONDS = 3600.0

#: (settings file, build request) -> what came of it
BuildWith = Callable[[Path, Build], Built]


def differing(
    state: State, store: Store, number: int, place: Path, build: BuildWith
) -> tuple[str, ...]:
    """Make release ``number`` again below the empty folder ``place``; return the files that differ.

    Raises Conflict for a release that was pruned or is not on record, IntegrityError when its own
    files are not the published ones.
    """
    release = releases.get(store, number)
    if release.folder is None or release.state == "pruned":
        raise Conflict(f"release {number} has no files to compare with")
    releases.check_files(state, release)
    published = releases.folder_of(state, release)
    assert published is not None
    made = _made(state, store, release, place, build)
    return tuple(n for n in MEMORY if (made / n).read_bytes() != (published / n).read_bytes())


def _made(state: State, store: Store, release: Release, place: Path, build: BuildWith) -> Path:
    """Return the folder in which ``release`` was made again, after those it must grow from."""
    chain = [release]
    while not _is_there(state, parent := _parent(store, chain[-1])):
        chain.append(parent)
    at = releases.folder_of(state, parent)
    for one in reversed(chain):
        folder = place / f"{one.number:06d}"
        folder.mkdir()
        _make(store, one, at, folder, build)
        at = folder
    assert at is not None, "the chain has a release"
    return at


def _parent(store: Store, release: Release) -> Release:
    if release.parent is None:
        raise Conflict(f"release {release.number}: what it was made from is not on record")
    return releases.get(store, release.parent)


def _is_there(state: State, release: Release) -> bool:
    """Tell whether a release's files are those that were published; the bare model has none."""
    try:
        releases.check_files(state, release)
    except IntegrityError:
        return False
    return True


def _make(
    store: Store, release: Release, parent: Path | None, folder: Path, build: BuildWith
) -> None:
    """Write what the ledger says of ``release`` into ``folder`` and seal it, to be grown from."""
    planned = plan.recorded(store, release)
    if release.kind == "emergency":
        from wise.withdrawal import withdraw

        assert parent is not None, "an emergency release takes facts out of one with files"
        withdraw(parent, folder, [fact.id for fact in planned.withdrawn])
    else:
        settings = folder.with_suffix(".json")
        body = plan.settings_of(store, release)
        settings.write_text(body, "utf-8")
        config = configuration.load(settings)
        request = plan.request(store, config, planned, parent, folder)
        build(settings, request.model_copy(update={"measured": False}))
    manifest.seal(folder, {"release": release.number})


def in_worker(state: State, progress: OnProgress) -> BuildWith:
    """Return a builder that gives each request to a worker of its own, as the daemon has one."""

    def build(settings: Path, request: Build) -> Built:
        worker = Worker(settings, state.logs / "rebuild.log", threading.Event())
        try:
            return worker.request(request, Built, BUDGET_SECONDS, progress)
        finally:
            worker.kill()

    return build
