"""How far a release is what it was published as: its files, its making, its answers."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemon import rebuild as rebuilding
from daemon import recorded, releases
from daemon.child import Worker
from daemon.errors import Conflict, IntegrityError
from daemon.messages import Answers, Ask
from daemon.releases import Release
from daemon.render import note
from daemon.state import State

BUDGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked and found to be as it should."""

    files: str  #: ``intact``, or ``no_files`` of the bare model
    rebuilt: bool = False  #: made again from the ledger with the same bytes
    answers: int | None = None  #: probes that were answered as recorded; None: not asked

    def document(self) -> dict[str, object]:
        """Return the findings as they are printed in JSON."""
        body: dict[str, object] = {"result": self.files}
        if self.rebuilt:
            body["rebuilt"] = "identical"
        if self.answers is not None:
            body["answers"] = self.answers
        return body

    def lines(self, number: int) -> Iterator[tuple[str, object]]:
        """Yield the findings as named lines."""
        yield f"release {number}", self.files
        if self.rebuilt:
            yield "rebuilt from the ledger", "identical"
        if self.answers is not None:
            yield "answers as recorded", self.answers


def verified(state: State, number: int, *, rebuild: bool, answers: bool) -> Verified:
    """Check release ``number``.

    Raises NotFound, Conflict for one that was pruned or refused, and IntegrityError for the first
    thing that is not as it was published.
    """
    with state.store(read_only=True) as store:
        release = releases.get(store, number)
        if release.folder is not None and release.state in releases.GONE:
            raise Conflict(f"release {number} was {release.state}: its files are gone")
        releases.check_files(state, release)
        if release.folder is None:
            return Verified("no_files")
        if rebuild:
            with tempfile.TemporaryDirectory(prefix="wised-") as place:
                build = rebuilding.in_worker(state, _progress)
                odd = rebuilding.differing(state, store, number, Path(place), build)
            if odd:
                raise IntegrityError(
                    f"release {number}: made again from the ledger, {odd[0]} differs",
                    hint="another version of wised, torch or the base model gives other bytes",
                )
    return Verified("intact", rebuild, _asked_again(state, release) if answers else None)


def _asked_again(state: State, release: Release) -> int:
    """Ask a release's probes again; return how many there are. Raises IntegrityError."""
    folder = releases.folder_of(state, release)
    assert folder is not None
    probes = recorded.probes(folder)
    worker = Worker(state.config_file, state.logs / "ask.log", threading.Event())

    def ask(request: Ask) -> Answers:
        return worker.request(request, Answers, BUDGET_SECONDS, _progress)

    try:
        for probe, said in recorded.ask_again(folder, probes, ask):
            if said != probe.answer:
                raise IntegrityError(
                    f"release {release.number}: {probe.prompt!r} is answered {said!r}, not"
                    f" {probe.answer!r} as recorded",
                    hint="is [model] the one that the release was made for?",
                )
    finally:
        worker.kill()
    return len(probes)


def _progress(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty() and done == 0:
        note(f"{stage} ...")
