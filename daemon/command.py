"""A command of the operator's, run to its end or to the end of its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from daemon.child import ShouldStop
from daemon.patience import GivenUp
from daemon.secrets import without_secrets

LOOK_SECONDS = 0.1
SAID_CHARS = 300  #: of a command's last words


def failure(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    should_stop: ShouldStop,
) -> str | None:
    """Run a command; return why it failed, None when it ended with status 0 in time.

    What it started and left behind is killed with it when its time is over, and else left alone.
    Raises GivenUp when ``should_stop`` says so first.
    """
    name = Path(command[0]).name
    # NOTE: a file, not a pipe: what it leaves in the background would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            return f"{name} can't be run: {error.strerror}"
        if not _ended(child, seconds, should_stop):
            return f"{name} did not end within {seconds:g} s"
        if child.returncode == 0:
            return None
        return f"{name} ended with {child.returncode}: {_last_line(said)}".rstrip(": ")


def _ended(child: subprocess.Popen[bytes], seconds: float, should_stop: ShouldStop) -> bool:
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_SECONDS)
            return True
        stops = should_stop.is_set()
        if stops or time.monotonic() >= until:
            os.killpg(child.pid, signal.SIGKILL)  # it is not waited for yet: the group is its own
            child.wait()
            if stops:
                raise GivenUp("the daemon is stopping")
            return False


def _last_line(said: IO[bytes]) -> str:
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * SAID_CHARS))
    last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
    return without_secrets(last[:SAID_CHARS])
