"""A daemon on a fresh state that is fed batch by batch, and what it answers on the way."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.lifelong_world import FAR, NEAR, Asked, newest, of_facts, of_others
from daemon import log, releases
from daemon.child import Worker
from daemon.cli import registry
from daemon.config import default_file
from daemon.messages import Answers, Ask
from daemon.service import Service
from daemon.state import init
from daemon.store import Store, shards
from demo import world

BATCH = 50  #: updates a cycle
LOOK_EVERY = 2  #: cycles between two rows of the table
SAMPLE, NEAR_THEN, FAR_THEN = 200, 200, 200  #: live facts and others asked for a row
SETTINGS = {"batch_max_facts": str(BATCH)}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    updates: int
    live: int  #: slots that changed so far
    held: int  #: facts in the release that answers
    release: int
    shards: int
    reliability: float
    generalisation: float
    locality_near: float
    locality_far: float
    stale: float
    seconds: float  #: of a cycle, the mean since the row before
    release_mb: float  #: on disk
    memory_mb: float  #: of the worker that builds, resident


@dataclass(frozen=True, slots=True)
class Cycle:
    """What it took to take in one batch, compaction left out."""

    seconds: float
    promoted: int


class Stream:
    """A daemon on a fresh state, fed batch by batch."""

    def __init__(self, place: Path) -> None:
        text = default_file().read_text("utf-8")
        for key, value in SETTINGS.items():
            text, count = re.subn(rf"(?m)^{key} = \S+", f"{key} = {value}", text)
            assert count == 1, key
        self.state = init(place / "state", datetime.now(UTC), text)
        self.store = Store(self.state.folder)
        self.service = Service(
            self.state, self.store, self.state.config(), log.setup(self.state.logs)
        )
        self.asker = Worker(self.state.config_file, place / "ask.log", threading.Event())
        self.cycles: list[Cycle] = []
        self.compactions: list[tuple[int, float]] = []  #: cycles before it, seconds
        self.told = 0

    def source(self, url: str) -> None:
        """Add the feed as a trusted source on loopback."""
        wanted = registry.requested("feed", url, "offices", "trusted", ("127.0.0.0/8",))
        registry.add(self.store, wanted, datetime.now(UTC))

    def take(self) -> None:
        """Poll, then work until nothing is left to do; note how long each part took."""
        begun, promoted = time.monotonic(), 0
        # A day's feed is told in a minute: it is due whenever the bench says so.
        self.store.connection.execute("UPDATE source SET next_poll_at = created_at")
        assert self.service.poll_due() == 1
        spent = 0.0
        while True:
            at, last = time.monotonic(), self._last()
            if not self.service.work():
                break
            taken = time.monotonic() - at
            new = self._last()
            if new != last and releases.get(self.store, new).kind == "compaction":
                self.compactions.append((len(self.cycles) + 1, taken))
                spent += taken
            elif new != last:
                promoted += 1
        self.cycles.append(Cycle(time.monotonic() - begun - spent, promoted))

    def _last(self) -> int:
        return releases.newest_first(releases.all_releases(self.store))[0].number

    def ask(
        self, asked: Sequence[Asked], release: releases.Release | None = None
    ) -> list[tuple[str, str]]:
        """Return each answer and the bare model's."""
        current = release or releases.promoted(self.store)
        folder = releases.folder_of(self.state, current)
        request = Ask(
            release=str(folder) if folder else None, prompts=tuple(a.prompt for a in asked)
        )
        said = self.asker.request(request, Answers, 3600.0, lambda *_: None).answers
        return [(one.text, one.text if one.bare is None else one.bare) for one in said]

    def share(self, asked: Sequence[Asked]) -> float:
        """Return the share of right answers."""
        said = self.ask(asked)
        right = [
            t == (b if a.expected is None else a.expected)
            for a, (t, b) in zip(asked, said, strict=True)
        ]
        return sum(right) / max(1, len(right))

    def row(self, updates: Sequence[world.Update], full: bool) -> Row:
        """Ask everything that a row of the table has; all of it at the end, else a sample."""
        facts = of_facts(updates, None if full else SAMPLE)
        others = of_others(updates, *((NEAR, FAR) if full else (NEAR_THEN, FAR_THEN)))
        current = releases.promoted(self.store)
        folder = releases.folder_of(self.state, current)
        assert folder is not None
        said = self.ask(facts["reliability"])
        fresh = sum(t == a.expected for a, (t, _) in zip(facts["reliability"], said, strict=True))
        stale = sum(t in a.older for a, (t, _) in zip(facts["reliability"], said, strict=True))
        held = self.store.one(
            "SELECT count(*) AS n FROM release_fact WHERE release = ?", current.number
        )
        assert held is not None
        return Row(
            len(updates),
            len(newest(updates)),
            held["n"],
            current.number,
            len(shards.of_release(self.store, current.number)),
            fresh / len(said),
            self.share(facts["generalisation"]),
            self.share(others["locality_near"]),
            self.share(others["locality_far"]),
            stale / len(said),
            statistics.fmean(self.spread()[-LOOK_EVERY:]),
            sum(p.stat().st_size for p in folder.iterdir()) / 2**20,
            self.resident("VmRSS"),
        )

    def spread(self) -> list[float]:
        """Return the seconds of each cycle with each compaction spread over those it serves."""
        seconds = [cycle.seconds for cycle in self.cycles]
        before = 0
        for at, taken in self.compactions:
            served = range(min(before, at - 1), at)
            for index in served:
                if index < len(seconds):
                    seconds[index] += taken / len(served)
            before = at
        return seconds

    def resident(self, field: str) -> float:
        """Return the building worker's resident memory in MiB, now (VmRSS) or at most (VmHWM)."""
        process = self.service._worker._process
        if process is None:
            return 0.0
        text = Path(f"/proc/{process.pid}/status").read_text("ascii")
        found = re.search(rf"{field}:\s+(\d+) kB", text)
        return int(found[1]) / 1024 if found else 0.0

    def close(self) -> None:
        """End the workers and close the store."""
        self.asker.kill()
        self.service.close()
        self.store.close()
