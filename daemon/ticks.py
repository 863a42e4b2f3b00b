"""When to look for work: APScheduler's memory jobs, which set a flag each and know nothing else.

What is due stands in the tables, so a tick that is missed or comes twice costs a look.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

#: of a tick's period: so much it may come later, so that daemons started together part
JITTER_SHARE = 0.1


class Ticks:
    """A flag for each kind of work, raised at the start and then once a period."""

    def __init__(self, periods: Mapping[str, float]) -> None:
        """``periods`` are seconds by kind of work."""
        self._periods = dict(periods)
        self._due = {kind: threading.Event() for kind in periods}
        self._scheduler: BackgroundScheduler | None = None

    def start(self) -> None:
        """Raise every flag and start the clock."""
        self._scheduler = _scheduler()
        for kind, seconds in self._periods.items():
            self.flag(kind)
            self._scheduler.add_job(
                self._due[kind].set,
                "interval",
                seconds=seconds,
                jitter=JITTER_SHARE * seconds,
                id=kind,
            )
        self._scheduler.start()

    def flag(self, kind: str) -> None:
        """Let there be work of a kind without waiting for its tick."""
        self._due[kind].set()

    def take(self, kind: str) -> bool:
        """Lower the flag of a kind; True when it was raised."""
        raised = self._due[kind].is_set()
        if raised:
            self._due[kind].clear()
        return raised

    def restart(self, periods: Mapping[str, float]) -> None:
        """Raise every flag and count anew from now, with these periods.

        Needed after the wall clock was set: the next tick was planned by the old one, and may be
        a day away.
        """
        self._periods = {kind: periods[kind] for kind in self._periods}
        for kind, seconds in self._periods.items():
            self.flag(kind)
            if self._scheduler is not None:
                jitter = JITTER_SHARE * seconds
                self._scheduler.reschedule_job(
                    kind, trigger="interval", seconds=seconds, jitter=jitter
                )

    def next_tick(self, kind: str) -> datetime | None:
        """Return when a kind's flag is raised next; None before the start and after the end."""
        job = self._scheduler.get_job(kind) if self._scheduler is not None else None
        found: datetime | None = job.next_run_time if job is not None else None
        return found

    def stop(self) -> None:
        """End the clock; jobs only set flags, so there is none to wait for."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None


def _scheduler() -> BackgroundScheduler:
    """Return a scheduler with all that matters set: its defaults drop a job that is late by 1 s."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    return BackgroundScheduler(
        timezone=UTC,
        jobstores={"default": MemoryJobStore()},
        executors={"default": ThreadPoolExecutor(1)},
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        daemon=True,
    )
