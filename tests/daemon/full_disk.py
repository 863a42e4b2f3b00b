"""A daemon whose disk fills up, in one process: ``python full_disk.py DISK``.

For one room after the other, in steps, until all fits: a state on DISK has just that much left
while a log's rows are to be stored, sorted out and published. Then there is room again. Everything
is real but the worker, for which `world.Builder` stands. Prints a line of JSON for each room.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cli_world import add_source, wised
from mortal import ask, embed
from world import START, Builder, Clock, config, new_state, states

from daemon import log as status_log
from daemon import service
from daemon.loop import Loop
from daemon.service import STAGES, Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store, timestamp

STEP = 36 << 10  #: bytes between one room and the next
MOST = 4 << 20
ROWS = 20
READS = ("status",), ("fact", "list"), ("db", "check")
ALL = {"promoted": ROWS}
CLOCK = Clock()
SERVE: dict[str, Any] = {"embed": embed, "ask": ask, "build": Builder()}


def leave(disk: Path, room: int) -> None:
    """Take all but so many bytes of what is free."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - room))


def states_of(store: Store) -> dict[str, int]:
    """How many facts are in each state."""
    return dict(Counter(states(store).values()))


def step(loop: Loop) -> None:
    """One round of all work, an hour later; what fails in it is for the loop to take."""
    CLOCK.now += timedelta(hours=1)
    for stage in STAGES:
        loop.ticks.flag(stage)
    loop.step()


def live(state: State, disk: Path, room: int) -> dict[str, object]:
    """Fill the disk, work, make room, work on; how it went."""
    with state.lock(), state.store() as store:
        made = Service(state, store, config(state), status_log.setup(state.logs), Asked(30))
        made._request = lambda request, *_: SERVE[request.kind](request)  # type: ignore[method-assign]
        made.start()
        loop = Loop(made, made.asked, STAGES, made.log, lambda: datetime.now(UTC))
        leave(disk, room)
        for _ in range(3):
            step(loop)
        full = states_of(store)
        read = [wised(state, *words).code for words in READS]
        (disk / "ballast").unlink()
        for _ in range(4):
            step(loop)
        status_log.close()
        after = states_of(store)
    check = wised(state, "db", "check", "--full").code
    return {"room": room, "full": full, "read": read, "after": after, "check": check}


def main(disk: Path) -> None:
    """Try one room after the other."""
    service.now = CLOCK
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.jsonl"
        row = {"relation": "head_of_government", "object": "Ada Lovelace"}
        rows.write_text(
            "".join(json.dumps({"subject": f"P{n}", **row}) + "\n" for n in range(ROWS))
        )
        base = new_state(Path(place))
        due = {"next_poll_at": timestamp(START)}
        add_source(base, kind="log", location=str(rows), tier="trusted", **due)
        for room in range(0, MOST, STEP):
            shutil.copytree(base.folder, disk / "state", symlinks=True)
            told = live(State(disk / "state"), disk, room)
            print(json.dumps(told))
            shutil.rmtree(disk / "state")
            if told["full"] == ALL:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
