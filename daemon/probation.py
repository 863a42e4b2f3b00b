"""A release is watched for a while after its promotion, and gives way to its parent if it fails.

A check asks some of its recorded probes again, in the mode that serves, and runs the operator's
own command. Checks are events, so a restart goes on with them.
"""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon import checks, recorded, releases
from daemon.child import WorkerError
from daemon.config import Config
from daemon.recorded import AskPrompts
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store
from policies.probation import Probation

SAID_CHARS = 300  #: of a command's last words


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to."""

    release: int
    same: int  #: probes that were answered as recorded
    asked: int
    failed: str | None  #: why the release had to go; None when it stays
    back_to: int | None = None  #: the release that answers instead


def rule(config: Config) -> Probation:
    """Return the configured rule."""
    section = config.probation
    every = timedelta(minutes=section.every_minutes)
    return Probation(timedelta(minutes=section.minutes), every, section.min_same)


def check(
    state: State, store: Store, config: Config, ask: AskPrompts, now: datetime
) -> Checked | None:
    """Check the promoted release if that is due; None when it is not, or can't be now.

    Promotion on hold means that a person has taken over: then nothing is checked, and a release
    that was rolled back to is not left in turn. Raises WorkerError only for a shutdown; a worker
    that dies tells nothing of the release, and is asked again at the next look.
    """
    release = releases.promoted(store)
    if not _is_on(store, release) or release.promoted_at is None:
        return None
    before, until = checks.times(store, release), release.promoted_at + rule(config).window
    if not rule(config).is_due(release.promoted_at, before[-1] if before else None, now):
        return None
    try:
        same, asked = _ask_again(state, release, config, ask, seed=len(before))
    except WorkerError as error:
        if error.is_stop:
            raise
        return None
    failed = _why(config, release, state, same, asked)
    with store.write():
        checks.record(store, release, same, asked, failed, until, now)
    if failed is None:
        return Checked(release.number, same, asked, None)
    back = releases.rollback(state, store, None, now, f"on probation: {failed}")
    return Checked(release.number, same, asked, failed, back)


def _is_on(store: Store, release: Release) -> bool:
    return release.parent is not None and "promote" not in releases.holds(store)


def _why(config: Config, release: Release, state: State, same: int, asked: int) -> str | None:
    if rule(config).is_failed(same, asked):
        return f"{same} of {asked} probes are answered as recorded"
    return _command(config, release, state)


def _ask_again(
    state: State, release: Release, config: Config, ask: AskPrompts, seed: int
) -> tuple[int, int]:
    """Return how many of a sample of the recorded probes are answered the same, and its size."""
    folder = releases.folder_of(state, release)
    assert folder is not None, "only the bare model has none, and it has no parent"
    probes = recorded.probes(folder)
    size = min(config.probation.sample, len(probes))
    drawn = random.Random(f"{release.number} {seed}").sample(probes, size)
    same = sum(probe.answer == said for probe, said in recorded.ask_again(folder, drawn, ask))
    return same, size


def _command(config: Config, release: Release, state: State) -> str | None:
    """Run the operator's command; return why it failed, None when it did not or there is none."""
    section = config.probation
    if not section.command:
        return None
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "WISED_STATE": str(state.folder.resolve()),
        "WISED_RELEASE": str(release.number),
    }
    name = Path(section.command[0]).name
    try:
        done = subprocess.run(
            section.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=section.command_seconds,
        )
    except subprocess.TimeoutExpired:
        return f"{name} did not end within {section.command_seconds:g} s"
    except OSError as error:
        return f"{name} can't be run: {error.strerror}"
    if done.returncode == 0:
        return None
    last = done.stderr[-4 * SAID_CHARS :].decode(errors="replace").strip().rpartition("\n")[2]
    return f"{name} ended with {done.returncode}: {last[:SAID_CHARS]}".rstrip(": ")
