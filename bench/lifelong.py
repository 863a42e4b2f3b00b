"""A decade in one sitting: ``python -m bench.lifelong`` streams 1,100 updates through the daemon.

The updates reach it in date order as an Atom feed over HTTP on loopback, 50 at a time; triage,
batches, shards, compaction, gate and releases are the daemon's own, with its default
configuration. Asked every 100 updates, by free greedy generation through the router, exact match
of the whole answer. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench import lifelong_operator, lifelong_plot
from bench.lifelong_world import FAR, NEAR, Asked, first_facts, newest, of_facts, of_others
from daemon import log, releases
from daemon.child import Worker
from daemon.cli import registry
from daemon.config import default_file
from daemon.messages import Answers, Ask
from daemon.service import Service
from daemon.state import init
from daemon.store import Store, shards
from demo import feed, world

if TYPE_CHECKING:
    from bench.lifelong_paper import PaperRow

BATCH = 50  #: updates a cycle
LOOK_EVERY = 2  #: cycles between two rows of the table
SAMPLE, NEAR_THEN, FAR_THEN = 200, 200, 200  #: live facts and others asked for a row
ENDS = 5  #: cycles at each end that are compared
SETTINGS = {"batch_max_facts": str(BATCH), "poll_interval_minutes": "1e-9"}


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
        wanted = registry.requested("feed", url, "offices", "trusted", True)
        registry.add(self.store, wanted, datetime.now(UTC))

    def take(self) -> None:
        """Poll, then work until nothing is left to do; note how long each part took."""
        begun, promoted = time.monotonic(), 0
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


def show(row: Row, *, header: bool) -> None:
    """Print a row of the table."""
    body = asdict(row)
    if header:
        print("  ".join(("method", *body)))
    values = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in body.values())
    print("  ".join(("wised", *values)), flush=True)


def paper_rows(updates: Sequence[world.Update]) -> list[PaperRow]:
    """Stream ``updates`` through the paper's method and print its rows of the table."""
    from bench.lifelong_paper import PaperStream

    rows = []
    for row in PaperStream().rows(updates, NEAR_THEN, FAR_THEN):
        shares = "  ".join(f"{kind} {share:.4f}" for kind, share in row.shares.items())
        print(f"paper  {row.updates}  {row.live}  {shares}  {row.seconds:.1f} s", flush=True)
        rows.append(row)
    return rows


def streamed(stream: Stream, updates: Sequence[world.Update]) -> tuple[list[Row], float]:
    """Stream ``updates``; return the table and the seconds spent on anything but asking for it."""
    begun, asking, rows = time.monotonic(), 0.0, []
    with feed.served(feed.document(updates[:1])) as served:
        stream.source(served.url)
        for number, start in enumerate(range(0, len(updates), BATCH), 1):
            end = min(start + BATCH, len(updates))
            served.publish(feed.document(updates[start:end]))
            stream.take()
            if number % LOOK_EVERY == 0 or end == len(updates):
                at = time.monotonic()
                rows.append(stream.row(updates[:end], end == len(updates)))
                asking += time.monotonic() - at
                show(rows[-1], header=len(rows) == 1)
    return rows, time.monotonic() - begun - asking


def result(
    stream: Stream, rows: Sequence[Row], seconds: float, retention: float
) -> dict[str, float]:
    """Return the figures of the last line."""
    last, spread = rows[-1], stream.spread()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "updates": last.updates,
        "live": last.live,
        "reliability": round(last.reliability, 4),
        "generalisation": round(last.generalisation, 4),
        "locality_near": round(last.locality_near, 4),
        "locality_far": round(last.locality_far, 4),
        "stale": round(last.stale, 4),
        "retention": round(retention, 4),
        "cycle_growth": round(
            statistics.fmean(spread[-ENDS:]) / statistics.fmean(spread[:ENDS]), 2
        ),
        "minutes": round(seconds / 60, 1),
        "peak_mb": round(own + stream.resident("VmHWM")),
    }


def main() -> None:
    """Stream, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1100, help="how many")
    parser.add_argument("--paper", type=int, default=300, help="how many the paper's way; 0: none")
    parser.add_argument("--plot", type=Path, help="write the table as a PNG to this file")
    parser.add_argument("--keep", type=Path, help="leave the state in this folder")
    args = parser.parse_args()
    updates = world.updates()[: args.updates]
    with tempfile.TemporaryDirectory() as spare:
        stream = Stream(args.keep or Path(spare))
        try:
            rows, seconds = streamed(stream, updates)
            found = result(stream, rows, seconds, stream.share(first_facts(updates)))
            spread = stream.spread()
            print("seconds a cycle, compaction spread: " + " ".join(f"{s:.0f}" for s in spread))
            print(
                "compactions, after cycle: "
                + ", ".join(f"{n}: {s:.0f} s" for n, s in stream.compactions)
            )
            print(json.dumps(found), flush=True)
            lifelong_operator.run(stream)
        finally:
            stream.close()
    if args.updates >= len(world.updates()):
        from bench import lifelong_capacity

        lifelong_capacity.check()
    paper = paper_rows(updates[: args.paper]) if args.paper else []
    if args.plot:
        lifelong_plot.save(args.plot, rows, spread, paper)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
