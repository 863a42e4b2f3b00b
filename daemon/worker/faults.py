"""Ways for a worker to die on purpose, for tests only.

``WISED_TEST_FAULT=kill:Atlantis,hang:Mu`` lets a worker die whenever a text it is given holds
``Atlantis``, else hang for ``Mu``. Nothing else reads the variable, and without it nothing acts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

VARIABLE = "WISED_TEST_FAULT"
GROWTH_BYTES = 64 * 2**20  #: a step of a worker that takes ever more memory
GROWTH_STEPS = 64  #: and then it gives up


def strike(texts: Iterable[str]) -> None:
    """Die, hang or fail as the variable says when one of ``texts`` holds one of its words."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    given = list(texts)
    for one in wanted.split(","):
        kind, _, word = one.partition(":")
        if any(word in text for text in given):
            _FAULTS[kind]()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit() -> None:
    os._exit(3)


def _freeze() -> None:
    """Stop the whole process: not even the heartbeat goes on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _hang() -> None:
    """Compute for ever: the heartbeat goes on."""
    while True:
        time.sleep(0.01)


def _raise() -> None:
    raise MemoryError("can't allocate 64 GiB")


def _grow() -> None:
    held = []
    for _ in range(GROWTH_STEPS):
        held.append(b"x" * GROWTH_BYTES)
        time.sleep(0.05)
    raise MemoryError(f"{len(held)} steps")


_FAULTS = {
    "kill": _kill,
    "crash": _crash,
    "exit": _exit,
    "freeze": _freeze,
    "hang": _hang,
    "raise": _raise,
    "grow": _grow,
}
