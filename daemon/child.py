"""The daemon's end of the worker process: start, ask, watch, kill.

The worker may die in any way, hang, fill the memory or write nonsense: each becomes a WorkerError.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeVar

from pydantic import ValidationError

from daemon import log_files
from daemon.deaths import DISK, TIMEOUT, WorkerError, death, log_size
from daemon.memory import held_mb, offer_to_the_kernel
from daemon.messages import ALIVE, AT_WORK, Envelope, Failed, Progress, Reply, ReplyLine, Request

__all__ = ["Limits", "OnProgress", "Worker", "WorkerError"]

T = TypeVar("T")
#: receives (stage, done, total) while a request runs
OnProgress = Callable[[str, int, int], None]
#: OpenMP's threads spin this often for each other before they sleep, not its own 300,000 times:
#: beside a busy neighbour that made a worker 15 times slower, alone it gains nothing
SPINS = "1000"
LOOK_SECONDS = 0.2  #: between two looks at a silent worker
MEMORY_LOOK_SECONDS = 0.5  #: between two looks at its memory
LAST_WORDS_SECONDS = 0.3  #: for a worker about to be killed to write its stacks to its log
ENDING_SECONDS = 5.0  #: for a worker that closed its pipe to end by itself
LOG_MAX_MB = 20.0  #: of a worker's log before a worker starts, where nothing else is configured
MAX_REPLY_CHARS = 2**28  #: of a line; 500 vectors of 4,096 numbers are 11 million


class ShouldStop(Protocol):
    """Says whether the worker is to be ended at once, whatever it does; any thread may ask.

    A ``threading.Event`` is one.
    """

    def is_set(self) -> bool:
        """Return True from the moment on when the worker has to go."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is killed although its request's budget is not spent."""

    silence_seconds: float = 120.0  #: without a heartbeat: the whole process hangs
    memory_mb: int | None = None  #: that it may hold; None: as much as the machine gives


class Worker:
    """One worker process, started at the first request and killable at any time.

    Not for several threads at once; and the one that asks first has to outlive the worker.
    """

    def __init__(
        self,
        config: Path,
        log: Path,
        should_stop: ShouldStop,
        limits: Limits = Limits(),
        program: Sequence[str] = (sys.executable, "-m", "daemon.worker"),
        log_max_mb: float = LOG_MAX_MB,
    ) -> None:
        self._config, self._log, self._should_stop = config, log, should_stop
        self._log_max_mb = log_max_mb
        self._limits, self._program = limits, program
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._pulse = _Pulse()
        self._logged = 0  #: bytes of the log that are older than the process
        self._at_work = False

    def request(
        self, request: Request, expect: type[T], budget_seconds: float, progress: OnProgress
    ) -> T:
        """Send a request and wait for its reply.

        Raises WorkerError; its ``code`` says how the worker failed (daemon/deaths.py), and
        ``is_at_work`` whether what was asked may be why.
        """
        self._at_work = False
        if self._should_stop.is_set():
            self.kill()
            raise self._error("worker.stopped", "the daemon is stopping")
        try:
            process = self._running()
        except OSError as error:
            raise self._error(
                "worker.not_started", f"no worker could be started: {error}"
            ) from error
        watch = _Watch(self._should_stop, self._limits, budget_seconds, self._pulse)
        # NOTE: a worker that hangs doesn't read, and the pipe holds less than a request may be.
        line = Envelope(request=request).model_dump_json() + "\n"
        threading.Thread(target=_write, args=(process, line), daemon=True).start()
        while True:
            reply = self._next(process, watch)
            if isinstance(reply, Progress):
                self._at_work = self._at_work or reply.stage == AT_WORK
                progress(reply.stage, reply.done, reply.total)
            elif isinstance(reply, Failed):
                if reply.is_last:
                    self.kill()
                raise self._refused(reply)
            elif isinstance(reply, expect):
                return reply

    def _next(self, process: subprocess.Popen[str], watch: _Watch) -> Reply:
        while True:
            if (trouble := watch.trouble(process.pid)) is not None:
                code, message = trouble
                self.kill(last_words=code != "worker.stopped")
                raise self._error(code, message)
            try:
                line = self._replies.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                # A child of the worker may hold the pipe open after it.
                if process.poll() is None:
                    continue
                line = None
            if line is None:
                raise self._died(process)
            try:
                return ReplyLine.model_validate_json(line).reply
            except ValidationError:
                self.kill()
                raise self._error(
                    "worker.garbled", f"the worker wrote no reply: {line[:80]!r}"
                ) from None

    def _refused(self, reply: Failed) -> WorkerError:
        message = f"{reply.error}: {reply.message}"
        if reply.disk_failed:
            return WorkerError(DISK, message, reply.hint)
        return WorkerError("worker.failed", message, reply.hint, is_at_work=self._at_work)

    def _error(self, code: str, message: str) -> WorkerError:
        return WorkerError(code, message, hint=f"see {self._log}", is_at_work=self._at_work)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        self._replies, self._pulse = queue.Queue(), _Pulse()
        log_files.trim(self._log, self._log_max_mb)  # a worker that dies each minute fills no disk
        self._logged = log_size(self._log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._program, str(self._config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                env={"GOMP_SPINCOUNT": SPINS, **os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        offer_to_the_kernel(self._process.pid)
        assert self._process.stdout is not None
        reader = threading.Thread(
            target=_pump, args=(self._process.stdout, self._replies, self._pulse), daemon=True
        )
        reader.start()
        return self._process

    def _died(self, process: subprocess.Popen[str]) -> WorkerError:
        code: int | None
        try:
            code = process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        return self._error(*death(code, self._log, self._logged))

    def kill(self, *, last_words: bool = False) -> None:
        """End the worker and whatever it started, at once.

        With ``last_words`` it first has a moment to write the stacks of its threads to its log.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if last_words and process.poll() is None:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_SECONDS)
        with contextlib.suppress(OSError):  # nothing is left of its group
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver or a disk
            process.wait(ENDING_SECONDS)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()  # `_pump` closes the other pipe at its end


class _Pulse:
    """When a worker was last heard of, by the monotonic clock; written by one thread."""

    def __init__(self) -> None:
        self.at = time.monotonic()


class _Watch:
    """What a worker is held to during one request."""

    def __init__(
        self, should_stop: ShouldStop, limits: Limits, budget_seconds: float, pulse: _Pulse
    ) -> None:
        self._should_stop, self._limits, self._budget = should_stop, limits, budget_seconds
        self._pulse = pulse
        self._begun = self._weighed = time.monotonic()

    def trouble(self, pid: int) -> tuple[str, str] | None:
        """Return why the worker has to be killed, as (code, message); None while it may go on."""
        now, limits = time.monotonic(), self._limits
        if self._should_stop.is_set():
            return "worker.stopped", "the daemon is stopping"
        if now > self._begun + self._budget:
            return TIMEOUT, f"the worker overran its {self._budget:.0f} s"
        if now > max(self._begun, self._pulse.at) + limits.silence_seconds:
            silence = f"{limits.silence_seconds:.0f} s"
            return "worker.silent", f"the worker hangs: nothing was heard of it for {silence}"
        if limits.memory_mb is not None and now > self._weighed + MEMORY_LOOK_SECONDS:
            self._weighed = now
            held = held_mb(pid)
            if held is not None and held > limits.memory_mb:
                limit = f"worker_memory_mb = {limits.memory_mb}"
                return "worker.memory", f"the worker held {held} MB, over {limit}"
        return None


def _write(process: subprocess.Popen[str], line: str) -> None:
    """Hand a request to the worker; that it has died meanwhile is found out elsewhere."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(line)
        process.stdin.flush()


def _pump(stdout: IO[str], replies: queue.Queue[str | None], pulse: _Pulse) -> None:
    """Hand lines on; None at the end. One reader a process, so a request can time out.

    Heartbeats go no further, or an idle worker's would pile up.
    """
    with stdout:
        while line := stdout.readline(MAX_REPLY_CHARS):
            pulse.at = time.monotonic()
            is_whole = line.endswith("\n") or len(line) == MAX_REPLY_CHARS
            if is_whole and line.rstrip("\n") != ALIVE:
                replies.put(line)  # what breaks off without an end is a worker that died
    replies.put(None)
