"""When each part of the daemon last moved. Written by the main thread, read by the observer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

#: without a word from the main loop it is taken for stuck; it looks for work every second
IDLE_SECONDS = 30.0
#: the same amid a step in the daemon itself: judging thousands of facts, syncing a release
STEP_SECONDS = 900.0
#: beyond what a worker's request may take; after it the worker should have been killed
GRACE_SECONDS = 30.0
LOADING = "loading"  #: how the worker's stages begin while it reads a model


@dataclass(frozen=True, slots=True)
class Work:
    """What the daemon is doing now."""

    stage: str  #: ``ingest`` or ``edit``
    since: datetime
    doing: str = ""  #: the worker's own word for it; empty before its first
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Vital:
    """How the daemon is, at one moment."""

    ready: bool  #: the store was opened and brought in line with the files
    stopping: bool
    fresh: bool  #: the main loop moved within its budget
    worker_fresh: bool  #: no request to the worker has overrun its budget
    failing: tuple[str, ...]  #: why each stage whose last step failed did so
    work: Work | None
    beats: Mapping[str, datetime]  #: when each part last moved

    @property
    def alive(self) -> bool:
        """Tell whether the daemon is getting on with its work, or waiting for some."""
        return self.fresh and self.worker_fresh

    @property
    def is_loading(self) -> bool:
        """Tell whether the worker is reading a model, which can take minutes."""
        return self.work is not None and self.work.doing.startswith(LOADING)


class Stops(Protocol):
    """Says whether the daemon is to end."""

    def is_set(self) -> bool:
        """Return True from the moment on when it is."""
        ...


class Watched:
    """A stop flag that takes each look at it for a beat.

    Who waits for the worker looks at it several times a second, and is the main loop then.
    """

    def __init__(self, pulse: Pulse, stops: Stops) -> None:
        self._pulse, self._stops = pulse, stops

    def is_set(self) -> bool:
        """Return what the flag says."""
        self._pulse.beat()
        return self._stops.is_set()


class Pulse:
    """The daemon's signs of life. Safe to read from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ready = self._stopping = False
        self._moved, self._budget = monotonic(), IDLE_SECONDS
        self._asked: tuple[float, float] | None = None  #: worker: request began, its budget
        self._work: Work | None = None
        self._failing: dict[str, str] = {}
        self._beats: dict[str, datetime] = {}

    def ready(self) -> None:
        """Note that the store is open and in line with the files."""
        with self._lock:
            self._ready = True
        self.beat()

    def stopping(self) -> None:
        """Note that the daemon is on its way out."""
        with self._lock:
            self._stopping = True

    def beat(self) -> None:
        """Note that the main loop moves."""
        with self._lock:
            self._moved = self._monotonic()
            self._beats["control"] = datetime.now(UTC)

    @contextmanager
    def during(self, stage: str, budget_seconds: float = STEP_SECONDS) -> Iterator[None]:
        """Let the block go without a beat for longer than an idle loop may."""
        self.beat()
        with self._lock:
            before = self._work, self._budget
            self._work = self._work or Work(stage, datetime.now(UTC))
            self._budget = budget_seconds
            self._beats[stage] = datetime.now(UTC)
        try:
            yield
        finally:
            self.beat()
            with self._lock:
                self._work, self._budget = before
                self._beats[stage] = datetime.now(UTC)

    @contextmanager
    def asking(self, budget_seconds: float) -> Iterator[None]:
        """Note that the worker has ``budget_seconds`` to answer in, for the block."""
        with self._lock:
            self._asked = self._monotonic(), budget_seconds
        try:
            yield
        finally:
            with self._lock:
                self._asked = None

    def report(self, doing: str, done: int, total: int) -> None:
        """Note how far the worker is."""
        with self._lock:
            self._beats["worker"] = datetime.now(UTC)
            if self._work is not None:
                self._work = Work(self._work.stage, self._work.since, doing, done, total)

    def failed(self, stage: str, why: str) -> None:
        """Note that a stage's last step failed, until `succeeded`."""
        with self._lock:
            self._failing[stage] = why

    def succeeded(self, stage: str) -> None:
        """Note that a stage's last step did not fail."""
        with self._lock:
            self._failing.pop(stage, None)

    def read(self) -> Vital:
        """Return how the daemon is now."""
        with self._lock:
            now = self._monotonic()
            overrun = self._asked and now - self._asked[0] > self._asked[1] + GRACE_SECONDS
            return Vital(
                ready=self._ready,
                stopping=self._stopping,
                fresh=now - self._moved <= self._budget,
                worker_fresh=not overrun,
                failing=tuple(f"{stage}: {why}" for stage, why in self._failing.items()),
                work=self._work,
                beats=dict(self._beats),
            )
