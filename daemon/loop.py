"""The daemon's main loop: acts on flags, between two pieces of work. Contains no rules.

Signals ask, ticks say when; a step does what they ask for, one thing after another.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from daemon.config import Config
from daemon.errors import WisedError
from daemon.observe.notify import Notifier
from daemon.observe.pulse import Pulse
from daemon.signals import Asked
from daemon.ticks import Ticks

LOOK_SECONDS = 0.25  #: between two looks at the flags
INGEST_SECONDS = 1.0  #: between two looks for sources that are due
ORDER = ("ingest", "read", "edit")  #: in which a round does what is flagged
#: a wall clock that leaves the monotonic one by more was set, or the machine slept
JUMP = timedelta(seconds=5)


class Works(Protocol):
    """What a loop drives; used in the loop's thread only. Any method may raise WisedError."""

    @property
    def pulse(self) -> Pulse:
        """Where the loop notes that it moves."""
        ...

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    def poll_due(self) -> int:
        """Poll what is due; return how many sources that were."""
        ...

    def read_due(self) -> int:
        """Let the reader read what waits for it; return how many entries it got on with."""
        ...

    def work(self) -> bool:
        """Do one piece of work; True when there may be more at once."""
        ...

    def reload(self) -> bool:
        """Take over the configuration on disk; False when it was refused."""
        ...

    def clock_was_set(self, by: timedelta) -> None:
        """Bring what waits in line after the wall clock jumped."""
        ...


class Loop:
    """One daemon's loop; `step` is one round, for tests to call by hand."""

    def __init__(
        self,
        service: Works,
        asked: Asked,
        stages: Iterable[str],
        log: Any,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._asked, self._log = service, asked, log
        self._clock, self._monotonic = clock, monotonic
        wanted = set(stages)
        wanted |= {"read"} if "ingest" in wanted else set()
        self._stages = tuple(stage for stage in ORDER if stage in wanted)
        self._last = clock(), monotonic()
        self.ticks = Ticks(self._periods())

    def _periods(self) -> dict[str, float]:
        cycle = self._service.config.daemon.cycle_interval_seconds
        every = {"ingest": INGEST_SECONDS, "read": cycle, "edit": cycle}
        return {stage: every[stage] for stage in self._stages}

    def run(self) -> None:
        """Work until a signal asks to stop."""
        self.ticks.start()
        try:
            while not self._asked.to_drain:
                self._service.pulse.beat()
                self.step()
                if not self._asked.to_drain:
                    time.sleep(LOOK_SECONDS)
        finally:
            self.ticks.stop()

    def drain(self) -> None:
        """Do all that is due, until nothing is."""
        act = self._acts()
        busy = True
        while busy:
            busy = False
            for stage in self._stages:
                if self._asked.to_drain:
                    return
                busy = bool(act[stage]()) or busy

    def step(self) -> None:
        """Do what flags ask for; a failure is logged and tried again at the next tick."""
        self._guard("clock", self._look_at_the_clock)
        self._guard("reload", self._look_at_the_configuration)
        for stage in self._stages:
            if self._asked.to_drain:
                return
            if self.ticks.take(stage):
                self._guard(stage, partial(self._act, stage))

    def _acts(self) -> dict[str, Callable[[], int]]:
        service = self._service
        return {"ingest": service.poll_due, "read": service.read_due, "edit": service.work}

    def _act(self, stage: str) -> None:
        if self._acts()[stage]() and stage != "ingest":
            self.ticks.flag(stage)  # a backlog is worked off without waiting for the next tick

    def _guard(self, stage: str, act: Callable[[], None]) -> None:
        """Run ``act``; what passes, a full disk or a busy database, is logged. Raises bugs."""
        try:
            act()
            self._service.pulse.succeeded(stage)
        except (WisedError, sqlite3.OperationalError, OSError) as error:
            if not self._asked.to_drain:
                self._service.pulse.failed(stage, str(error))
                hint = getattr(error, "hint", "")
                self._log.error("work.failed", stage=stage, error=str(error), hint=hint)

    def _look_at_the_configuration(self) -> None:
        if not self._asked.reload:
            return
        self._asked.reload = False
        with Notifier.of(os.environ).reloading():
            if self._service.reload():
                self._asked.grace_seconds = self._service.config.daemon.shutdown_grace_seconds
                self.ticks.restart(self._periods())

    def _look_at_the_clock(self) -> None:
        """Notice when the wall clock was set: intervals are judged by it, in the tables too."""
        wall, steady = self._clock(), self._monotonic()
        last_wall, last_steady = self._last
        by = (wall - last_wall) - timedelta(seconds=steady - last_steady)
        if abs(by) > JUMP:
            self._log.warning("clock.was_set", by_seconds=round(by.total_seconds()))
            self.ticks.restart(self._periods())
            self._service.clock_was_set(by)  # the store may be locked: then it is noticed again
        self._last = wall, steady
