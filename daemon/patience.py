"""Wait for what is slow and can't be interrupted, no longer than it may take or the daemon stay."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

from daemon.errors import WisedError

if TYPE_CHECKING:
    from daemon.child import ShouldStop

T = TypeVar("T")
LOOK_SECONDS = 0.1


class GivenUp(WisedError):
    """The daemon has to end; what was waited for goes on in a thread that ends with it."""


class Overdue(WisedError):
    """It takes longer than it may; it goes on in a thread whose result nobody hears."""


class Patience:
    """Waits for work of several names; of one name only one piece goes on at a time.

    So what hangs for good, a read from a mount whose server is gone, costs one thread a name.
    """

    def __init__(self) -> None:
        self._left: dict[Hashable, threading.Thread] = {}

    def wait_for(
        self, name: Hashable, work: Callable[[], T], should_stop: ShouldStop, seconds: float
    ) -> T:
        """Return what ``work`` returns or raise what it raises; it runs in a thread of its own.

        Raises GivenUp when ``should_stop`` says so first. Raises Overdue after ``seconds``, and at
        once as long as earlier work of that name goes on.
        """
        left = self._left.pop(name, None)
        if left is not None and left.is_alive():
            self._left[name] = left
            raise Overdue("what was begun before still hangs")
        done: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)

        # What is logged in there names the source, too.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(run,), daemon=True)
        thread.start()
        until = time.monotonic() + seconds
        while thread.is_alive():
            if should_stop.is_set():
                raise GivenUp("the daemon is stopping")
            if time.monotonic() > until:
                self._left[name] = thread
                raise Overdue(f"no end after {seconds:g} s")
            thread.join(LOOK_SECONDS)
        if failed:
            raise failed[0]
        return done[0]
