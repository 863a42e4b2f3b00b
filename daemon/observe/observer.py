"""The thread beside the main one: each tick it looks at the pulse and the store, and tells.

It writes `status.json`, the heartbeat rows and the metrics' text file, renders the pages of the
endpoint, and speaks with systemd. What goes wrong here is logged and never stops the work.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon import status, status_document
from daemon.config import Metrics
from daemon.errors import UsageError, WisedError
from daemon.observe import files, health
from daemon.observe.health import Health
from daemon.observe.notify import Notifier
from daemon.observe.pulse import Pulse, Vital
from daemon.observe.server import Endpoint, Page
from daemon.render import SCHEMA_VERSION, safe_json
from daemon.signals import Asked
from daemon.state import State
from daemon.status import Status, Word
from daemon.store import Store, vitals

TICK_SECONDS = 1.0
#: at most so long are the pages and `status.json` kept when nothing changes: ages go on
REFRESH_SECONDS = 5.0
#: at most so long is the store not read when nothing changes: what is said of a day goes on too
COLLECT_SECONDS = 60.0
HEARTBEAT_SECONDS = 30.0  #: between two writes that also prove that the store can be written
TEXTFILE_SECONDS = 15.0
EXTEND_SECONDS = 60.0  #: asked for at each tick while starting, stopping and loading a model
JOIN_SECONDS = 5.0

_TROUBLE = (sqlite3.Error, OSError, WisedError)


class Observer:
    """Tells how the daemon is. `tick` is one look; `start` makes a thread do them."""

    def __init__(
        self,
        state: State,
        settings: Metrics,
        log: Any,
        pulse: Pulse,
        asked: Asked,
        notifier: Notifier,
    ) -> None:
        self._state, self._settings, self._log = state, settings, log
        self._pulse, self._asked, self._notifier = pulse, asked, notifier
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._due: dict[str, float] = {}
        self._seen: Status | None = None
        self._data_version = -1
        self._unwritten = False  #: the last try to write it down failed
        self._told = ""  #: the status line that systemd has
        self._told_ready = self._withheld = False
        self._trouble: str | None = "not looked at yet"
        self._logged_trouble: str | None = None
        self._tallies: Any = None
        self._metrics = ""
        self._endpoint: Endpoint | None = None
        self._textfile_fails = False

    def start(self) -> None:
        """Open the port and begin to look; raises UsageError when the port can't be had."""
        files.tidy(self._state.status_file)  # the lock is held: no other daemon writes it
        if self._settings.listen:
            host, port = self._settings.address
            try:
                self._endpoint = Endpoint(host, port, self.page)
            except OSError as error:
                raise UsageError(
                    f"[metrics] listen = {self._settings.listen!r}: {error.strerror}",
                    hint="choose another port, or see what holds this one: ss -ltnp",
                ) from error
            self._log.info("endpoint.listening", host=host, port=self._endpoint.port)
        self._thread.start()

    def close(self) -> None:
        """Look a last time, then stop."""
        self._ended.set()
        self._thread.join(JOIN_SECONDS)
        if self._endpoint is not None:
            self._endpoint.close()

    def page(self, path: str) -> Page | None:
        """Return the page of a path; None for any other. Safe from any thread."""
        if path == "/metrics":
            return Page(200, self._metrics) if self._metrics else Page(503, "not yet\n")
        if path not in ("/livez", "/readyz"):
            return None
        found = self._health()
        if path == "/livez":
            return Page(200, "alive\n") if found.alive else Page(503, "stuck\n")
        if found.ready:
            return Page(200, "ready\n")
        return Page(503, "".join(f"{reason}\n" for reason in found.reasons))

    def _health(self) -> Health:
        return health.of(self._pulse.read(), self._trouble)

    def _run(self) -> None:
        period = min(TICK_SECONDS, (self._notifier.watchdog_seconds or 60.0) / 3)
        store: Store | None = None
        try:
            while True:
                last = self._ended.wait(period)
                with self._troubles_logged():
                    store = store or self._state.store("observer")
                    self.tick(store)
                self._speak()
                if last:
                    break
            with self._troubles_logged():
                if store is not None:
                    self._say_stopped(store)
        finally:
            if store is not None:
                store.close()

    @contextmanager
    def _troubles_logged(self) -> Iterator[None]:
        """Keep what went wrong for `/readyz` and the watchdog; log it once, and its end."""
        try:
            yield
            self._trouble = None
        except _TROUBLE as error:
            self._trouble = str(error)
        if self._trouble == self._logged_trouble:
            return
        if self._trouble is None:
            self._log.info("observer.recovered")
        else:
            self._log.error("observer.failed", error=self._trouble)
        self._logged_trouble = self._trouble

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def tick(self, store: Store) -> None:
        """Look at the store, and write down what is new."""
        vital = self._pulse.read()
        if vital.beats and self._is_due("heartbeat", HEARTBEAT_SECONDS):
            with self._soon_again("heartbeat"):
                vitals.beat(store, vital.beats)
        version = store.connection.execute("PRAGMA data_version").fetchone()[0]
        has_aged = self._is_due("refresh", REFRESH_SECONDS)
        is_old = self._is_due("collect", COLLECT_SECONDS) or version != self._data_version
        word = Word(vital.work, health.of(vital, None).reasons)
        if is_old or self._seen is None or self._seen.word != word:
            with self._soon_again("collect"):
                self._seen = self._collect(store, word)
            self._data_version = version
        elif not has_aged and not self._unwritten:
            return
        self._unwritten = True
        self._write_status(self._seen)
        self._render(store, self._seen, vital)
        self._unwritten = False

    def _collect(self, store: Store, word: Word) -> Status:
        return status.collect(store, self._state.daemon(), word, datetime.now(UTC))

    @contextmanager
    def _soon_again(self, what: str) -> Iterator[None]:
        """Let what failed be tried again at the next tick."""
        try:
            yield
        except BaseException:
            self._due.pop(what, None)
            raise

    def _write_status(self, seen: Status) -> None:
        document = status_document.document(seen, datetime.now(UTC))
        text = safe_json({"schema_version": SCHEMA_VERSION, **document}) + "\n"
        files.replace(self._state.status_file, text)

    def _render(self, store: Store, seen: Status, vital: Vital) -> None:
        textfile = self._settings.textfile
        write = bool(textfile) and self._is_due("textfile", TEXTFILE_SECONDS)
        if self._endpoint is None and not write:
            return
        from daemon.observe import metrics  # the client library is loaded where it is asked for
        from daemon.observe.tallies import Tallies

        self._tallies = self._tallies or Tallies()
        now = datetime.now(UTC)
        figures = metrics.read(self._state, store, now, seen, self._tallies, vital.beats)
        self._metrics = metrics.text(figures)
        if write:
            self._write_textfile(Path(textfile))

    def _write_textfile(self, path: Path) -> None:
        """Replace the collector's file; that it can't be written keeps the daemon from nothing."""
        try:
            files.replace(path, self._metrics, 0o644)
            self._textfile_fails = False
        except OSError as error:
            if not self._textfile_fails:
                self._log.error("textfile.failed", path=str(path), error=str(error))
            self._textfile_fails = True

    def _speak(self) -> None:
        """Tell systemd what is new; ping it only while everything is well."""
        vital, found = self._pulse.read(), self._health()
        if vital.ready and not self._told_ready:
            self._notifier.ready()
            self._told_ready = True
        stopping = self._ended.is_set() or self._asked.to_drain
        if stopping and not vital.stopping:
            self._pulse.stopping()
            self._notifier.stopping()
        # NOTE: a reload waits until the piece of work that goes on has ended.
        takes_long = vital.is_loading or not vital.ready or stopping or self._asked.reload
        if takes_long and found.alive:  # one that is stuck gets no more time
            self._notifier.extend(EXTEND_SECONDS)
        self._tell_status(vital, found)
        self._ping(vital, found)

    def _tell_status(self, vital: Vital, found: Health) -> None:
        seen = self._seen
        if seen is None:
            return
        waiting = sum(seen.queue.get(state, 0) for state in status.WAITING)
        text = health.line(vital, found, seen.release.number, waiting)
        if text != self._told:
            self._notifier.status(text)
            self._told = text

    def _ping(self, vital: Vital, found: Health) -> None:
        seconds = self._notifier.watchdog_seconds
        if seconds is None or not self._is_due("watchdog", seconds / 3 * 0.9):
            return
        well = vital.ready and found.alive and self._trouble is None
        if well:
            self._notifier.ping()
        elif not self._withheld and vital.ready:
            self._log.error("watchdog.withheld", reasons=list(found.reasons))
        self._withheld = not well

    def _say_stopped(self, store: Store) -> None:
        """Leave a `status.json` behind that doesn't claim that the daemon runs."""
        self._write_status(status.collect(store, None, Word(), datetime.now(UTC)))


@contextmanager
def observed(
    state: State,
    settings: Metrics,
    log: Any,
    pulse: Pulse,
    asked: Asked,
    environment: Mapping[str, str],
) -> Iterator[None]:
    """Watch the daemon for the block; ``asked`` tells what signals asked it for."""
    observer = Observer(state, settings, log, pulse, asked, Notifier.of(environment))
    observer.start()
    try:
        yield
    finally:
        observer.close()
