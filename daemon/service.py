"""The daemon: poll, triage and cycle when due. Composition only; the rules lie elsewhere.

APScheduler only says when. All work waits in the store, so killing the process loses none.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TypeVar

from structlog.contextvars import bound_contextvars

from daemon import log as status_log
from daemon import log_files, polling, progress, releases
from daemon.child import Worker, WorkerError
from daemon.config import Config
from daemon.cycle import Done, cycle
from daemon.errors import WisedError
from daemon.log_events import OUTCOMES
from daemon.messages import Answers, Ask, Build, Built, Embed, Embedded, Request
from daemon.observe.observer import observed
from daemon.observe.pulse import Pulse, Watched
from daemon.polling import Polled
from daemon.state import State
from daemon.store import Store
from daemon.triage import Triage

T = TypeVar("T")
STAGES = frozenset({"ingest", "edit"})
ASK_BUDGET_SECONDS = 1800.0
POLL_GRACE_SECONDS = 120.0  #: for reading and storing what was fetched within its own limit
TICK_SECONDS = 1.0  #: how often the main loop looks for due work and signals


def now() -> datetime:
    """Return the wall clock; everything else takes the time as an argument."""
    return datetime.now(UTC)


class Service:
    """One daemon on one state folder; `poll_due` and `work` are single steps."""

    def __init__(self, state: State, store: Store, config: Config, log: Any) -> None:
        self.state, self.store, self.config, self.log = state, store, config, log
        self.stop = threading.Event()
        self.pulse = Pulse()
        log_files.trim(state.logs / "worker.log", config.log.file_max_mb)
        should_stop = Watched(self.pulse, self.stop)
        self._worker = Worker(state.config_file, state.logs / "worker.log", should_stop)
        self._extract = polling.extractor(config)
        self._triage = Triage(store, config, self._embed, self._ask)

    def start(self) -> None:
        """Undo what the last end left half done."""
        with self.pulse.during("start"):
            for line in releases.reconcile(self.state, self.store, now()):
                self.log.warning("state.reconciled", what=line)
        self.pulse.ready()
        number = releases.promoted(self.store).number
        self.log.info("daemon.ready", release=number)

    def poll_due(self) -> int:
        """Poll every due source once; return how many were, without logs that wait for room."""
        if "ingest" in releases.holds(self.store):
            return 0
        polled = 0
        for source in polling.due_in_turn(self.store, now):
            if self.stop.is_set():
                break
            budget = self.config.ingest.timeout_seconds + POLL_GRACE_SECONDS
            with self.pulse.during("ingest", budget), bound_contextvars(source=source.name):
                found = polling.poll(self.store, source, self.config, self._extract, now())
            self._report_poll(found)
            polled += not found.waits
        return polled

    def _report_poll(self, found: Polled) -> None:
        fields = {"source": found.source, "entries": found.entries, "facts": found.facts}
        if found.error:
            self.log.warning("source.failed", source=found.source, error=found.error)
        elif found.quota:
            self.log.warning("source.waits", source=found.source, quota=found.quota)
        elif not found.waits:
            self.log.info("source.polled", **fields, dead=found.dead, unchanged=found.unchanged)
        for one in found.dropped:
            self.log.warning("facts.dropped", source=one.source, quota=one.quota, facts=one.facts)

    def work(self) -> bool:
        """Triage what was received and run one cycle; True when there was something to do."""
        if "edit" in releases.holds(self.store):
            return False
        with self.pulse.during("edit"):
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
        return self._request(request, Embedded, ASK_BUDGET_SECONDS)

    def _ask(self, request: Ask) -> Answers:
        return self._request(request, Answers, ASK_BUDGET_SECONDS)

    def _request(self, request: Request, expect: type[T], budget: float) -> T:
        with progress.shown(self.log, self.pulse.report) as report, self.pulse.asking(budget):
            return self._worker.request(request, expect, budget, report)

    def _build(self, request: Build) -> Built:
        batch = releases.get(self.store, request.number).batch_id
        with bound_contextvars(release=request.number, batch=batch):
            return self._built(request)

    def _built(self, request: Build) -> Built:
        self.log.info(
            "release.building",
            release=request.number,
            facts=len(request.facts),
            kept=len(request.kept),
            withdrawn=len(request.withdrawn),
        )
        budget = self.config.daemon.build_budget_minutes * 60
        built = self._request(request, Built, budget)
        measures = {name: f"{m.right}/{m.asked}" for name, m in built.measures.items()}
        for miss in built.misses:
            self.log.debug("probe.missed", release=request.number, **miss.model_dump())
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
        if done.outcome == "failed":
            self.pulse.failed("worker", "; ".join(done.reasons))
        else:
            self.pulse.succeeded("worker")
        if done.outcome in ("promoted", "verified"):
            self.log.info(OUTCOMES[done.outcome], **fields)
        else:
            self.log.error(OUTCOMES[done.outcome], **fields)


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
        log = status_log.setup(state.logs, config.log)
        service = Service(state, store, config, log)
        watch = (state, config.metrics, log, service.pulse, service.stop.is_set, os.environ)
        with closing(status_log), _signals(service.stop), observed(*watch):
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
            service.pulse.beat()
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
            service.pulse.succeeded(stage)
        except WisedError as error:
            if service.stop.is_set():
                return
            service.pulse.failed(stage, str(error))
            service.log.error("work.failed", stage=stage, error=str(error), hint=error.hint)
