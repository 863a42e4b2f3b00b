"""What signals ask for, as flags. A handler sets one and does nothing else.

SIGTERM, SIGINT   the first drains: no new work, the current stage may end; the second stops at once
SIGHUP            read the configuration again
SIGUSR1           write the stacks of all threads to a file (faulthandler's own handler)

NOTE: the flags are plain attributes. ``threading.Event.set`` takes a lock that the main thread may
hold at the moment when the handler runs in it.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

STACKS = "stacks.txt"  #: in the folder of logs


class Asked:
    """What the daemon was asked for by signals, and since when."""

    def __init__(
        self, grace_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.grace_seconds = grace_seconds
        self._monotonic = monotonic
        self._drain_since: float | None = None
        self._at_once: int | None = None
        self.reload = False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask to drain; a second time, to stop at once."""
        if self._drain_since is None:
            self._drain_since = self._monotonic()
        else:
            self._at_once = number

    @property
    def to_drain(self) -> bool:
        """Tell whether no new work is to be begun."""
        return self._drain_since is not None

    def is_set(self) -> bool:
        """Tell whether the work that goes on has to end now: asked twice, or the grace is over."""
        if self._at_once is not None:
            return True
        since = self._drain_since
        return since is not None and self._monotonic() >= since + self.grace_seconds

    @property
    def exit_code(self) -> int:
        """Return 0 for a drained stop, 128 and the signal's number for one at once."""
        return 0 if self._at_once is None else 128 + self._at_once


@contextmanager
def handled(asked: Asked, logs: Path) -> Iterator[None]:
    """Let signals set the flags of ``asked`` for the block."""

    def to_stop(number: int, frame: FrameType | None) -> None:
        asked.stop(number)

    def to_reload(number: int, frame: FrameType | None) -> None:
        asked.reload = True

    handlers = {signal.SIGTERM: to_stop, signal.SIGINT: to_stop, signal.SIGHUP: to_reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    with (logs / STACKS).open("a", encoding="utf-8") as stacks:
        faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGUSR1)
            for number, handler in before.items():
                signal.signal(number, handler)
