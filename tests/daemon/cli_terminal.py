"""wised as a process on a terminal of its own (a pty), typed at and looked at from outside."""

import codecs
import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import daemon

ROOT = Path(daemon.__file__).resolve().parents[1]
#: SIGINT as in a shell that someone sits at: in the background it is inherited as ignored
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " from daemon.cli import main; main()"
)
PATIENCE_SECONDS = 30.0


class Terminal:
    """A terminal with wised running on it.

    `all` is what was written to it, `seen` the part of that behind what was expected last.
    """

    def __init__(self, *arguments: str, rows: int = 50, columns: int = 120) -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (rows, columns))
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.before = termios.tcgetattr(self.theirs)
        self.seen = self.all = ""
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=variables,
            start_new_session=True,
        )

    def expect(self, text: str) -> None:
        """Wait until something more was written that has ``text``; later calls look behind it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            self._read(0.1)
        self.seen = self.seen.partition(text)[2]

    def _read(self, seconds: float) -> None:
        if select.select([self._ours], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                text = self._decode(os.read(self._ours, 65536))
                self.seen += text
                self.all += text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the end, reading what is still written; return the exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running after {self.seen!r}"
            self._read(0.1)
        while select.select([self._ours], [], [], 0)[0]:
            self._read(0)
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    made = Terminal(*arguments)
    try:
        yield made
    finally:
        made.close()
