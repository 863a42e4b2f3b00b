"""The daemon: poll, triage and cycle when due. Composition only; the rules lie elsewhere.

APScheduler only says when. All work waits in the store, so killing the process loses none.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from daemon import log as status_log
from daemon import polling, progress, releases
from daemon.child import Worker, WorkerError
from daemon.config import Config
from daemon.cycle import Done, cycle
from daemon.errors import WisedError
from daemon.messages import Answers, Ask, Build, Built, Embed, Embedded
from daemon.state import State
from daemon.store import Store
from daemon.triage import Triage

STAGES = frozenset({"ingest", "edit"})
ASK_BUDGET_SECONDS = 1800.0
TICK_SECONDS = 1.0  #: how often the main loop looks for due work and signals


def now() -> datetime:
    """Return the wall clock; everything else takes the time as an argument."""
    return datetime.now(UTC)


class Service:
    """One daemon on one state folder; `poll_due` and `work` are single steps."""

    def __init__(self, state: State, store: Store, config: Config, log: Any) -> None:
        self.state, self.store, self.config, self.log = state, store, config, log
        self.stop = threading.Event()
        self._worker = Worker(state.config_file, state.logs / "worker.log", self.stop)
        self._extract = polling.extractor(config)
        self._triage = Triage(store, config, self._embed, self._ask)

    def start(self) -> None:
        """Undo what the last end left half done."""
        for line in releases.reconcile(self.state, self.store, now()):
            self.log.warning("state.reconciled", what=line)
        number = releases.promoted(self.store).number
        self.log.info("daemon.ready", release=number)

    def poll_due(self) -> int:
        """Poll every due source once; return how many were polled."""
        if "ingest" in releases.holds(self.store):
            return 0
        sources = polling.due(self.store, now())
        for source in sources:
            if self.stop.is_set():
                break
            found = polling.poll(self.store, source, self.config, self._extract, now())
            fields = {"source": found.source, "entries": found.entries, "facts": found.facts}
            if found.error:
                self.log.warning("source.failed", source=found.source, error=found.error)
            else:
                self.log.info("source.polled", **fields, dead=found.dead, unchanged=found.unchanged)
        return len(sources)

    def work(self) -> bool:
        """Triage what was received and run one cycle; True when there was something to do."""
        if "edit" in releases.holds(self.store):
            return False
        sorted_out = self._sort_out()
        done = cycle(self.state, self.store, self.config, self._build, now)
        if done is not None:
            self._report(done)
        waits = done is not None and done.outcome == "verified"
        return bool(sorted_out) or (done is not None and not waits)

    def close(self) -> None:
        """End the worker."""
        self._worker.kill()

    def _sort_out(self) -> int:
        current = releases.folder_of(self.state, releases.promoted(self.store))
        place = str(current) if current else None
        count = self._triage.run(place, now())
        if count:
            self.log.info("facts.triaged", facts=count)
        return count

    def _embed(self, request: Embed) -> Embedded:
        with progress.shown(self.log, self.state.progress_file) as report:
            return self._worker.request(request, Embedded, ASK_BUDGET_SECONDS, report)

    def _ask(self, request: Ask) -> Answers:
        with progress.shown(self.log, self.state.progress_file) as report:
            return self._worker.request(request, Answers, ASK_BUDGET_SECONDS, report)

    def _build(self, request: Build) -> Built:
        self.log.info(
            "release.building",
            release=request.number,
            facts=len(request.facts),
            kept=len(request.kept),
            withdrawn=len(request.withdrawn),
        )
        budget = self.config.daemon.build_budget_minutes * 60
        with progress.shown(self.log, self.state.progress_file) as report:
            built = self._worker.request(request, Built, budget, report)
        measures = {name: f"{m.right}/{m.asked}" for name, m in built.measures.items()}
        for miss in built.misses:
            self.log.info("probe.missed", release=request.number, **miss.model_dump())
        figures = {name: round(value, 5) for name, value in built.figures.items()}
        self.log.info("release.measured", release=request.number, **measures, figures=figures)
        return built

    def _report(self, done: Done) -> None:
        fields = {
            "release": done.release,
            "promoted": done.promoted,
            "set_aside": done.set_aside,
            "reasons": list(done.reasons),
        }
        level = self.log.info if done.outcome in ("promoted", "verified") else self.log.error
        level(f"release.{done.outcome}", **fields)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set ``stop``; handlers do nothing else."""

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {s: signal.signal(s, ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(state: State, *, once: bool = False, stages: frozenset[str] = STAGES) -> int:
    """Run the daemon in the foreground; ``once`` drains what is due and returns.

    Raises NotRunning when another daemon holds the lock, UsageError for a bad configuration.
    """
    config = state.config()
    with state.lock(), state.store() as store:
        log = status_log.setup(state.logs)
        service = Service(state, store, config, log)
        with _signals(service.stop):
            try:
                service.start()
                _drain(service, stages) if once else _serve(service, stages)
            except WorkerError as error:
                if error.code != "worker.stopped":
                    raise
            finally:
                service.close()
                log.info("daemon.stopped")
    return 0


def _drain(service: Service, stages: frozenset[str]) -> None:
    """Do all that is due, until nothing is."""
    busy = True
    while busy and not service.stop.is_set():
        busy = "ingest" in stages and service.poll_due() > 0
        if "edit" in stages and not service.stop.is_set():
            busy = service.work() or busy


def _serve(service: Service, stages: frozenset[str]) -> None:
    """Work when the scheduler says so, until a signal asks to stop.

    The scheduler's jobs only set flags, so a long cycle never piles up runs behind it.
    """
    from apscheduler.schedulers.background import BackgroundScheduler

    due = {"ingest": threading.Event(), "edit": threading.Event()}
    scheduler = BackgroundScheduler(timezone=UTC)
    periods = {"ingest": TICK_SECONDS, "edit": service.config.daemon.cycle_interval_seconds}
    for stage in sorted(stages):
        due[stage].set()  # the first look is now
        scheduler.add_job(
            due[stage].set,
            "interval",
            seconds=periods[stage],
            id=stage,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    scheduler.start()
    try:
        while not service.stop.wait(TICK_SECONDS):
            _step(service, due)
    finally:
        scheduler.shutdown(wait=False)


def _step(service: Service, due: dict[str, threading.Event]) -> None:
    """Do what the scheduler flagged; a failure is logged and tried again at the next flag."""
    for stage, act in (("ingest", service.poll_due), ("edit", service.work)):
        if not due[stage].is_set() or service.stop.is_set():
            continue
        due[stage].clear()
        try:
            if act() and stage == "edit":
                due[stage].set()  # a backlog is worked off without waiting for the next flag
        except WisedError as error:
            if service.stop.is_set():
                return
            service.log.error("work.failed", stage=stage, error=str(error), hint=error.hint)
