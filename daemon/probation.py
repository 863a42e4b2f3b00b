"""A release is watched for a while after its promotion, and gives way to its parent if it fails.

A check asks some of its recorded probes again, in the mode that serves, and runs the operator's
own command. Checks are events, so a restart goes on with them.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from daemon import checks, command, recorded, releases
from daemon.child import ShouldStop, WorkerError
from daemon.config import Config
from daemon.errors import Conflict, IntegrityError, OnHold, Overtaken, Refused
from daemon.faults import fault
from daemon.patience import GivenUp
from daemon.recorded import AskPrompts
from daemon.releases import Release
from daemon.state import State
from daemon.store import Store
from policies.probation import Probation
from wise.errors import BadArtifact


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to."""

    release: int
    same: int  #: probes that were answered as recorded
    asked: int
    failed: str | None  #: why the release had to go; None when it stays
    back_to: int | None = None  #: the release that answers instead
    stuck: str | None = None  #: why the one before can't answer, so that this one still does


def rule(config: Config) -> Probation:
    """Return the configured rule."""
    section = config.probation
    every = timedelta(minutes=section.every_minutes)
    return Probation(timedelta(minutes=section.minutes), every, section.min_same)


def check(
    state: State,
    store: Store,
    config: Config,
    ask: AskPrompts,
    should_stop: ShouldStop,
    now: datetime,
) -> Checked | None:
    """Check the promoted release if that is due; None when it is not, or can't be now.

    Promotion on hold means that a person has taken over: then nothing is checked, and a release
    that was rolled back to, before the check or amid it, is not left in turn. Raises WorkerError
    only for a shutdown; a worker that dies tells nothing of the release, and is asked again at the
    next look.
    """
    release = releases.promoted(store)
    if not _is_on(store, release) or release.promoted_at is None:
        return None
    before, until = checks.times(store, release), release.promoted_at + rule(config).window
    if not rule(config).is_due(release.promoted_at, before[-1] if before else None, now):
        return None
    try:
        same, asked, failed = _ask_again(state, release, config, ask, seed=len(before))
        failed = failed or _command(config, release, state, should_stop)
    except WorkerError as error:
        if error.is_stop:
            raise
        return None
    except GivenUp:
        return None
    back = stuck = None
    if failed is not None:
        try:
            back, stuck = _go_back(state, store, release, failed, now)
        except (Overtaken, OnHold):
            return None
    with store.write():
        if stuck is not None:  # else the next release would be built upon one that failed
            why = f"{checks.REASON}{failed}; the release before can't answer: {stuck}"
            releases.hold(store, "promote", why, now)
        checks.record(store, release, same, asked, failed, until, now)
    fault("probation.checked")
    return Checked(release.number, same, asked, failed, back, stuck)


def _go_back(
    state: State, store: Store, release: Release, failed: str, now: datetime
) -> tuple[int | None, str | None]:
    """Return the release that answers from now on, or why none can.

    Raises Overtaken or OnHold when a person has taken over while the release was checked.
    """
    assert release.parent is not None, "the bare model is on no probation"
    why = f"{checks.REASON}{failed}"
    try:
        releases.promote(
            state,
            store,
            release.parent,
            now,
            why,
            after=release.number,
            unless_held=True,
            then_hold=f"rolled back to release {release.parent}: {why}",
        )
    except (Overtaken, OnHold):
        raise
    except (Conflict, IntegrityError, Refused) as error:
        return None, str(error)
    return release.parent, None


def _too_few(config: Config, same: int, asked: int) -> str | None:
    if rule(config).is_failed(same, asked):
        return f"{same} of {asked} probes are answered as recorded"
    return None


def _is_on(store: Store, release: Release) -> bool:
    return release.parent is not None and "promote" not in releases.holds(store)


def _ask_again(
    state: State, release: Release, config: Config, ask: AskPrompts, seed: int
) -> tuple[int, int, str | None]:
    """Ask a sample of the recorded probes again.

    Returns how many are answered the same, how many were asked, and why that is not enough.
    """
    folder = releases.folder_of(state, release)
    assert folder is not None, "only the bare model has none, and it has no parent"
    try:
        probes = recorded.probes(folder)
    except BadArtifact as error:
        return 0, 0, f"its record can't be read: {error}"
    size = min(config.probation.sample, len(probes))
    drawn = random.Random(f"{release.number} {seed}").sample(probes, size)
    same = sum(probe.answer == said for probe, said in recorded.ask_again(folder, drawn, ask))
    return same, size, _too_few(config, same, size)


def _command(config: Config, release: Release, state: State, should_stop: ShouldStop) -> str | None:
    """Run the operator's command; return why it failed, None when it did not or there is none."""
    section = config.probation
    if not section.command:
        return None
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "WISED_STATE": str(state.folder.resolve()),
        "WISED_RELEASE": str(release.number),
    }
    return command.failure(section.command, environment, section.command_seconds, should_stop)
