"""The daemon: poll, triage and cycle when due. Composition only; the rules lie elsewhere.

All work waits in the store, so killing the process loses none.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from structlog.contextvars import bound_contextvars

from daemon import attempts, inspection, mounts, polling, probation, progress, readers, releases
from daemon import log as status_log
from daemon import reload as reloading
from daemon.child import Limits, Worker, WorkerError
from daemon.config import Config
from daemon.cycle import Done, cycle
from daemon.errors import Refused, WisedError
from daemon.faults import fault
from daemon.log_events import OUTCOMES
from daemon.loop import Loop
from daemon.messages import Answers, Ask, Build, Built, Embed, Embedded, Read, ReadText, Request
from daemon.observe.observer import observed
from daemon.observe.pulse import Pulse, Watched
from daemon.patience import GivenUp, Overdue, Patience
from daemon.polling import Polled
from daemon.reading import Reads
from daemon.retention import Retention, Trimmed
from daemon.signals import Asked, handled
from daemon.state import State
from daemon.store import Store, clock, keys
from daemon.store.keys import Rekeyed
from daemon.triage import Triage
from ingest import Extractor, IngestError, Poll

T = TypeVar("T")
STAGES = frozenset({"ingest", "edit"})
POLL_GRACE_SECONDS = 120.0  #: for reading and storing what was fetched within its own limit


def now() -> datetime:
    """Return the wall clock; everything else takes the time as an argument."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is made anew for each configuration."""

    config: Config
    worker: Worker
    extract: Extractor
    reads: Reads
    triage: Triage
    retention: Retention


class Service:
    """One daemon on one state folder; `poll_due` and `work` are single steps.

    ``asked`` says when to end; without it, nothing but a signal's default does.
    """

    def __init__(
        self, state: State, store: Store, config: Config, log: Any, asked: Asked | None = None
    ) -> None:
        self.state, self.store, self.log = state, store, log
        self.asked = asked or Asked(config.daemon.shutdown_grace_seconds)
        self._broken_off: str | None = None  #: why a cycle left files and rows out of line
        self.pulse = Pulse()
        self._watched, self._patience = Watched(self.pulse, self.asked), Patience()
        parts = self._parts(config)
        state.write_running(config)
        self._take_over(parts)

    def _parts(self, config: Config) -> _Parts:
        """Make what a configuration takes; nothing is in force yet. Raises ValueError."""
        section, log = config.daemon, self.state.logs / "worker.log"
        limits = Limits(section.worker_silence_seconds, section.worker_memory_mb)
        worker = Worker(
            self.state.running_file, log, self._watched, limits, log_max_mb=config.log.file_max_mb
        )
        extract = polling.extractor(config)
        reader = readers.configured(config, self._read, self._watched)
        return _Parts(
            config,
            worker,
            extract,
            Reads(self.store, config, reader, extract, self.log),
            Triage(self.store, config, self._embed, self._ask),
            Retention(self.store, config),
        )

    def _take_over(self, parts: _Parts) -> None:
        """Let a configuration be in force; a worker starts with it when it is first asked."""
        self.config, self._worker, self._extract = parts.config, parts.worker, parts.extract
        self._reads, self._triage = parts.reads, parts.triage
        self._retention = parts.retention

    def start(self) -> None:
        """Undo what the last end left half done."""
        with self.pulse.during("start"):
            if clock.is_behind(self.store, now()):
                self.log.warning("clock.was_set", by_seconds=None)
                clock.let_all_be_due(self.store, now())
            self._say(attempts.note_interrupted(self.store, self.config, now()))
            self._reconcile()
            self._renew_keys()
            if inspection.damage(self.store):  # it may be mended by now
                self._inspect()
        self.pulse.ready()
        number = releases.promoted(self.store).number
        self.log.info("daemon.ready", release=number)

    def _renew_keys(self) -> None:
        self._report_keys(keys.renew(self.store, self.config.subjects, now()))

    def _report_keys(self, found: Rekeyed | None) -> None:
        if found:
            self.log.info("facts.rekeyed", facts=found.facts, disputed_slots=found.disputed)

    def _reconcile(self) -> None:
        self._say(releases.reconcile(self.state, self.store, now()))

    def _say(self, mended: Iterable[str]) -> None:
        for line in mended:
            self.log.warning("state.reconciled", what=line)

    def reload(self) -> bool:
        """Take over the configuration on disk, all of it or nothing; False when it was refused."""
        before = self.config
        try:
            config = self.state.config()
            changed = reloading.changed(before, config)
            reloading.check(changed)
            parts = self._parts(config)
            rekeyed = self._write_down(config, changed) if changed else None
        except (WisedError, ValueError, OSError, sqlite3.OperationalError) as error:
            hint = getattr(error, "hint", "")
            self.log.error("config.refused", error=str(error), hint=hint)
            return False
        if changed:
            self._worker.kill()
            self._take_over(parts)
            self._report_keys(rekeyed)
            if config.log != before.log:  # the logger goes on under its name
                status_log.setup(self.state.logs, config.log)
        self.log.info("config.reloaded", changed=list(changed))
        return True

    def _write_down(self, config: Config, changed: Sequence[str]) -> Rekeyed | None:
        """Put a configuration on record: its event, the keys by its names, the worker's file."""
        draft = self.state.draft_running(config)
        with self.store.write():
            self.store.event("config.reload", "config", {"changed": list(changed)}, now())
            rekeyed = keys.renew_within(self.store, config.subjects, now())
        fault("reload.recorded")
        draft.replace(self.state.running_file)
        return rekeyed

    def clock_was_set(self, by: timedelta) -> None:
        """Let all that waits be due when the wall clock went back: its times lie in the future."""
        if by < timedelta(0):
            self._reads.clock_was_set()
            clock.let_all_be_due(self.store, now())

    def poll_due(self) -> int:
        """Poll every due source once; return how many were, without logs that wait for room."""
        polled = 0
        for source in polling.due_in_turn(self.store, now):
            if self.asked.to_drain or "ingest" in releases.holds(self.store):
                break
            during = self.pulse.during("ingest", self._poll_seconds)
            try:
                with during, bound_contextvars(source=source.name):
                    found = polling.poll(
                        self.store, source, self.config, self._extract, now(), self._look
                    )
            except GivenUp:
                break
            self._report_poll(found)
            polled += not found.waits
        return polled

    def _report_poll(self, found: Polled) -> None:
        fields = {"source": found.source, "entries": found.entries, "facts": found.facts}
        if found.trace:
            self.log.error(
                "poll.broke_off", source=found.source, error=found.error, exception=found.trace
            )
        elif found.error:
            self.log.warning("source.failed", source=found.source, error=found.error)
        elif found.quota:
            self.log.warning("source.waits", source=found.source, quota=found.quota)
        elif not found.waits:
            self.log.info("source.polled", **fields, dead=found.dead, unchanged=found.unchanged)
        for one in found.dropped:
            self.log.warning("facts.dropped", source=one.source, quota=one.quota, facts=one.facts)

    def _look(
        self,
        source: polling.Source,
        config: Config,
        extract: Extractor,
        at: datetime,
        rows: int | None,
    ) -> Poll:
        """Fetch what is new at a source; a slow one must not keep the daemon from ending."""
        try:
            return self._patience.wait_for(
                source.id,
                lambda: polling.fetch(source, config, extract, at, rows),
                self._watched,
                self._poll_seconds,
            )
        except Overdue as error:
            hint = "see to the disk or the mount that it lies on"
            raise IngestError("poll.hangs", str(error), hint) from error

    @property
    def _poll_seconds(self) -> float:
        return self.config.ingest.timeout_seconds + POLL_GRACE_SECONDS

    def read_due(self) -> int:
        """Let the reader read entries that wait for it; return how many it got on with."""
        if "ingest" in releases.holds(self.store):
            return 0
        with self.pulse.during("read"):
            return self._reads.run(now)

    def work(self) -> bool:
        """Triage what was received and run one cycle; True when there was something to do.

        Raises WorkerError when the worker can't even begin with triage and nothing else was done.
        """
        self._say(releases.mend_link(self.state, self.store))
        self._trim()
        if inspection.is_due(self.store, now()):
            with self.pulse.during("inspect"):
                self._inspect()
        with self.pulse.during("edit"):
            return self._work()

    def _trim(self) -> None:
        done = self._retention.step(now())
        if done != Trimmed():
            self.log.info("rows.trimmed", texts=done.texts, dead_letters=done.letters)

    def _inspect(self) -> None:
        """Look for damage; a release that answers and is damaged gives way as at a start."""
        found = inspection.inspect(self.state, self.store, now())
        for what in found:
            self.log.error("state.damaged", what=what)
        if found:
            self._reconcile()

    def _work(self) -> bool:
        if self._broken_off is not None:
            attempts.put_off(self.store, self.config, self._broken_off, now())
            self._reconcile()
            self._broken_off = None
        self._check_promoted()
        if "edit" in releases.holds(self.store):
            return False
        try:
            sorted_out, trouble = self._sort_out(), None
        except WorkerError as error:
            if error.is_stop:
                raise
            sorted_out, trouble = 0, error
        done = self._cycle()
        if done is None and trouble is not None:
            raise trouble
        waits = done is not None and done.outcome == "verified"
        return bool(sorted_out) or (done is not None and not waits)

    def close(self) -> None:
        """End the worker."""
        self._worker.kill()

    def _check_promoted(self) -> None:
        """Look at a release on probation; it may give way to the one before."""
        should_stop = Watched(self.pulse, self.asked)
        found = probation.check(self.state, self.store, self.config, self._ask, should_stop, now())
        if found is None:
            return
        fields: dict[str, object] = {"release": found.release}
        fields |= {"same": found.same, "asked": found.asked}
        if found.failed is None:
            self.log.info("release.checked", **fields)
            return
        fields["reason"] = found.failed
        if found.stuck is None:
            self.log.error("release.rolled_back", **fields, back_to=found.back_to)
        else:
            self.log.error("release.not_rolled_back", **fields, error=found.stuck)

    def _cycle(self) -> Done | None:
        """Run a cycle; what one leaves that a full disk breaks off is tidied before the next."""
        try:
            done = cycle(self.state, self.store, self.config, self._build, now)
        except WorkerError:
            raise  # a stop, and all is in line
        except (WisedError, sqlite3.Error, OSError) as error:
            self._broken_off = str(error)
            raise
        if done is not None:
            self._report(done)
        return done

    def _sort_out(self) -> int:
        current = releases.folder_of(self.state, releases.promoted(self.store))
        place = str(current) if current else None
        sorted_out = self._triage.run(place, now())
        if sorted_out.error is not None:
            fields = {"facts": sorted_out.facts, "quarantined": sorted_out.quarantined}
            self.log.error("triage.failed", error=str(sorted_out.error), **fields)
        elif sorted_out.facts:
            self.log.info("facts.triaged", facts=sorted_out.facts)
        for trace in sorted_out.traces:
            self.log.error("triage.broke_off", exception=trace)
        return sorted_out.facts

    def _request(self, request: Request, expect: type[T], budget_minutes: float) -> T:
        """Ask the worker, unless the daemon is to stop: then nothing new is begun."""
        if self.asked.to_drain:
            raise WorkerError("worker.stopped", "the daemon is stopping")
        budget = 60 * budget_minutes
        with progress.shown(self.log, self.pulse.report) as report, self.pulse.asking(budget):
            return self._worker.request(request, expect, budget, report)

    def _embed(self, request: Embed) -> Embedded:
        return self._request(request, Embedded, self.config.daemon.embed_budget_minutes)

    def _ask(self, request: Ask) -> Answers:
        return self._request(request, Answers, self.config.daemon.ask_budget_minutes)

    def _read(self, request: Read) -> ReadText:
        # The model watches its own time; the rest is for loading it.
        budget = self.config.daemon.ask_budget_minutes + request.timeout_seconds / 60
        return self._request(request, ReadText, budget)

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
        built = self._request(request, Built, self.config.daemon.build_budget_minutes)
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


def run(
    state: State,
    *,
    once: bool = False,
    stages: frozenset[str] = STAGES,
    allow_network_fs: bool = False,
) -> int:
    """Run the daemon in the foreground; ``once`` drains what is due and returns.

    Returns 0, or 128 and the signal's number when a second signal stopped it at once. Raises
    NotRunning when another daemon holds the lock, UsageError for a bad configuration, Refused for
    a state on a network file system.
    """
    config = state.config()
    if not allow_network_fs:
        _check_disk(state)
    asked = Asked(config.daemon.shutdown_grace_seconds)
    with handled(asked, state.logs), state.lock(), state.store(migrate=True) as store:
        log = status_log.setup(state.logs, config.log)
        service = Service(state, store, config, log, asked)
        loop = Loop(service, asked, stages, log, now)
        watch = (state, config.metrics, log, service.pulse, asked, os.environ)
        with closing(status_log), observed(*watch):
            try:
                service.start()
                loop.drain() if once else loop.run()
            except WorkerError as error:
                if not error.is_stop:
                    raise
            finally:
                service.close()
                log.info("daemon.stopped")
    return asked.exit_code


def _check_disk(state: State) -> None:
    """Raise Refused where a lock may be granted twice and SQLite's WAL is damaged.

    Source: sqlite.org/wal.html, "WAL does not work over a network filesystem".
    """
    kind = mounts.network_kind(state.folder)
    if kind is not None:
        raise Refused(
            f"{state.folder} lies on a network file system ({kind})",
            hint="move it to a local disk; --allow-network-fs runs it there at your risk",
        )
