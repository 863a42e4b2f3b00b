"""How a worker failed, in words.

code               what happened
worker.killed      signal 9 from outside: the kernel, out of memory as a rule, or a person
worker.crashed     another signal: a bug in native code
worker.died        it ended by itself, with an exit code
worker.failed      it answered that it could not
worker.disk        it answered that a disk was full or broken: no fact is to blame
worker.timeout     it overran its stage's budget
worker.silent      no heartbeat: the whole process hangs
worker.memory      it held more memory than it may
worker.not_started the system made no process
worker.garbled     it wrote something that is no reply
worker.stopped     the daemon is stopping and took it back
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from daemon.errors import TimedOut, WisedError
from daemon.secrets import without_secrets

TAIL_BYTES = 2000  #: of the worker's last words that are looked through for an error


DISK, TIMEOUT = "worker.disk", "worker.timeout"


class WorkerError(WisedError):
    """The worker died, had to be killed, or answered that it could not; ``code`` says which."""

    def __init__(
        self, code: str, message: str, hint: str = "", *, is_at_work: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        if code == TIMEOUT:
            self.exit_code = TimedOut.exit_code
        #: the models were loaded and no disk failed, so what was asked may be why it failed
        self.is_at_work = is_at_work

    @property
    def is_stop(self) -> bool:
        """Tell whether the daemon itself took the work back."""
        return self.code == "worker.stopped"


def log_size(log: Path) -> int:
    """Return how long a log is in bytes, 0 when there is none."""
    return log.stat().st_size if log.exists() else 0


def death(code: int | None, log: Path, since: int) -> tuple[str, str]:
    """Return the error code and the words for a process that ended with ``code``.

    ``since`` is how long its log was when it started; None for ``code``: it had to be killed
    after it had closed its pipe.
    """
    if code is None:
        return "worker.died", "the worker closed its pipe and did not end"
    if code == -signal.SIGKILL:
        return "worker.killed", "the worker was killed (signal 9): likely out of memory"
    if code < 0:
        number = f"signal {-code}"
        with_name = f"{number}, {signal.Signals(-code).name}" if -code in _NAMED else number
        return "worker.crashed", f"the worker crashed ({with_name})"
    return "worker.died", f"the worker ended with code {code}: {_last_line(log, since)}"


_NAMED = frozenset(int(s) for s in signal.Signals)


def _last_line(log: Path, since: int) -> str:
    """Return the last line of what a worker wrote: of a traceback, the error."""
    with log.open("rb") as file:
        file.seek(max(since, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        tail = file.read().decode("utf-8", "replace").strip()
    return without_secrets(tail.splitlines()[-1]) if tail else "no last words"
