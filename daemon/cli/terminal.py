"""The terminal itself: single keys, and giving it back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

MAX_KEY_BYTES = 32  #: an arrow or function key comes as several bytes at once


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, so that the terminal is given back as it was."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {s: signal.signal(s, end) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _woken() -> Iterator[int]:
    """Yield a descriptor that can be read from once a signal has come."""
    ours, signals = os.pipe()
    os.set_blocking(signals, False)
    before = signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(before)
        os.close(ours)
        os.close(signals)


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits for a key and returns it, empty when the terminal is gone.

    Between two keys, and after the block, the terminal is as it was.
    """
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def key() -> str:
        tty.setcbreak(handle, termios.TCSADRAIN)
        try:
            # NOTE: a signal that comes just before `read` begins would wait for a key, too.
            while handle not in select.select([handle, woken], [], [])[0]:
                os.read(woken, MAX_KEY_BYTES)
            return os.read(handle, MAX_KEY_BYTES).decode("utf-8", "replace")
        finally:
            termios.tcsetattr(handle, termios.TCSADRAIN, before)

    with ends_in_order(), _woken() as woken:
        yield key
