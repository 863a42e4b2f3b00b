"""Serve the daemon's requests, a JSON line each, until standard input ends.

The heartbeat starts before anything heavy is imported, so that a slow start is no silence.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from daemon.messages import Alive, Failed, Progress, Reply, ReplyLine

HEARTBEAT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1  #: prctl(2)


class _Channel:
    """Lines to the daemon, from any thread."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()

    def send(self, reply: Reply) -> None:
        line = ReplyLine(reply=reply).model_dump_json() + "\n"
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def beat(self) -> None:
        """Say that the process runs, for as long as it does."""
        while True:
            self.send(Alive())
            time.sleep(HEARTBEAT_SECONDS)

    def report(self, stage: str, done: int, total: int) -> None:
        self.send(Progress(stage=stage, done=done, total=total))


def _read(lines: queue.SimpleQueue[str]) -> None:
    """Pass requests on; when the daemon closes the pipe or dies, end at once, amid any work.

    Nothing is lost: what a worker writes counts only after the daemon has published it.
    """
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _die_with_the_daemon() -> None:
    """Let the kernel end a worker that hangs when the daemon is killed; Linux only.

    NOTE: the parent is the *thread* that started the worker, so that has to be one that stays.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run until the daemon closes the pipe."""
    _die_with_the_daemon()
    faulthandler.enable()  # a crash leaves its stack in the worker's log ...
    faulthandler.register(signal.SIGUSR1)  # ... and so does a worker that is about to be killed
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    channel = _Channel(out)
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    threading.Thread(target=channel.beat, daemon=True).start()

    from daemon.worker.serving import Server, last_words

    sys.excepthook = lambda kind, error, trace: print(last_words(error), file=sys.stderr, end="")
    server = Server(Path(sys.argv[1]), channel.report)
    while True:
        reply = server.reply(lines.get())
        channel.send(reply)
        if isinstance(reply, Failed) and reply.is_last:
            os._exit(1)


if __name__ == "__main__":
    main()
