"""The daemon's end of the worker process: start, ask, kill."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol, TypeVar

from daemon.errors import WisedError
from daemon.messages import Envelope, Failed, Progress, Reply, ReplyLine, Request

T = TypeVar("T")
#: receives (stage, done, total) while a request runs
OnProgress = Callable[[str, int, int], None]
#: OpenMP's threads spin this often for each other before they sleep, not its own 300,000 times:
#: beside a busy neighbour that made a worker 15 times slower, alone it gains nothing
SPINS = "1000"
TAIL_BYTES = 2000  #: of the worker's last words that an error quotes


class ShouldStop(Protocol):
    """Says whether the worker is to be ended; asked several times a second while one works."""

    def is_set(self) -> bool:
        """Return True from the moment on when the worker has to go."""
        ...


class WorkerError(WisedError):
    """The worker died, overran its budget, or answered that it could not; ``code`` says which."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class Worker:
    """One worker process, started at the first request and killable at any time."""

    def __init__(self, config: Path, log: Path, should_stop: ShouldStop) -> None:
        self._config, self._log, self._should_stop = config, log, should_stop
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()

    def request(
        self, request: Request, expect: type[T], budget_seconds: float, progress: OnProgress
    ) -> T:
        """Send a request and wait for its reply.

        Raises WorkerError: ``worker.died``, ``worker.timeout``, ``worker.stopped`` (a shutdown was
        asked for), or ``worker.failed`` when it answered that it could not.
        """
        process = self._running()
        assert process.stdin is not None
        deadline = time.monotonic() + budget_seconds
        try:
            process.stdin.write(Envelope(request=request).model_dump_json() + "\n")
            process.stdin.flush()
        except OSError as error:
            raise self._died(process) from error
        while True:
            reply = self._next(process, deadline, budget_seconds)
            if isinstance(reply, Progress):
                progress(reply.stage, reply.done, reply.total)
            elif isinstance(reply, Failed):
                raise WorkerError("worker.failed", f"{reply.error}: {reply.message}", reply.hint)
            elif isinstance(reply, expect):
                return reply

    def _next(self, process: subprocess.Popen[str], deadline: float, budget: float) -> Reply:
        while True:
            if self._should_stop.is_set():
                self.kill()
                raise WorkerError("worker.stopped", "the daemon is stopping")
            if time.monotonic() > deadline:
                self.kill()
                raise WorkerError("worker.timeout", f"the worker overran its {budget:.0f} s")
            try:
                line = self._replies.get(timeout=0.2)
            except queue.Empty:
                continue
            if line is None:
                raise self._died(process)
            return ReplyLine.model_validate_json(line).reply

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._replies = queue.Queue()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "daemon.worker", str(self._config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env={"GOMP_SPINCOUNT": SPINS, **os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        assert self._process.stdout is not None
        reader = threading.Thread(
            target=_pump, args=(self._process.stdout, self._replies), daemon=True
        )
        reader.start()
        return self._process

    def _died(self, process: subprocess.Popen[str]) -> WorkerError:
        code = process.wait()
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = log.read().decode("utf-8", "replace").strip()
        last = tail.splitlines()[-1] if tail else "no last words"
        self._process = None
        _close(process)
        return WorkerError(
            "worker.died", f"the worker ended with code {code}: {last}", hint=f"see {self._log}"
        )

    def kill(self) -> None:
        """End the worker and whatever it started, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _close(process)


def _close(process: subprocess.Popen[str]) -> None:
    """Close the pipe to an ended worker; `_pump` closes the one from it at its end."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _pump(stdout: IO[str], replies: queue.Queue[str | None]) -> None:
    """Hand lines on; None at the end. One reader a process, so a request can time out."""
    with stdout:
        for line in stdout:
            replies.put(line)
    replies.put(None)
