"""Wait for something slow that can't be interrupted, but no longer than the daemon may stay."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from daemon.child import ShouldStop
from daemon.errors import WisedError

T = TypeVar("T")
LOOK_SECONDS = 0.1


class GivenUp(WisedError):
    """The daemon has to end; what was waited for goes on in a thread that ends with it."""


def wait_for(work: Callable[[], T], should_stop: ShouldStop) -> T:
    """Return what ``work`` returns or raise what it raises; it runs in a thread of its own.

    Raises GivenUp when ``should_stop`` says so first.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        if should_stop.is_set():
            raise GivenUp("the daemon is stopping")
        thread.join(LOOK_SECONDS)
    if failed:
        raise failed[0]
    return done[0]
