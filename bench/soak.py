"""Kill a real daemon at random moments, again and again: ``python -m bench.soak --kills 200``.

A feed and a correction log go on bringing the demo world's updates; the daemon (one time in five
its worker alone) dies by SIGKILL amid polling, triage, builds, publishing and promotion, and is
started again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from daemon import releases
from daemon.config import default_file
from daemon.invariants import bad_files, violations
from daemon.state import State, init
from daemon.store import Store, keys, timestamp
from demo import feed, world
from demo.world import Update

LONGEST_SECONDS = 14.0  #: that a daemon lives; a batch of four facts takes about eight
WORKER_SHARE = 0.2  #: of the kills that hit the worker
EARLY_SHARE = 0.1  #: of the lives that end before the daemon is ready
EARLY_SECONDS = 0.6  #: that such a life lasts at most; a start takes about as long
RESTART_SECONDS = 3.0  #: that 99 of 100 starts may take until the daemon is ready
DRAIN_SECONDS = 3600.0
NEWS = 4  #: updates that are published before each life
EVERY = 10  #: lives after which all invariants are looked at
#: small batches and few probes: what counts here is how often work is cut short
SETTINGS = {
    "batch_max_facts = 100": "batch_max_facts = 4",
    "far_probes = 480": "far_probes = 20",
    "retention_sample = 100": "retention_sample = 10",
    "min_generalisation = 0.95": "min_generalisation = 0.2",
    "min_after_text = 0.97": "min_after_text = 0.2",
    "min_second_turn = 0.97": "min_second_turn = 0.2",
    "min_locality_near = 0.99": "min_locality_near = 0.5",
    "min_locality_far = 0.998": "min_locality_far = 0.5",
    "max_stale = 0.003": "max_stale = 0.5",
    "cycle_interval_seconds = 60": "cycle_interval_seconds = 1",
    "retry_minutes = 10": "retry_minutes = 0.01",
    "max_attempts = 3": "max_attempts = 9",
}


@dataclass(slots=True)
class Soaked:
    """What came of it."""

    kills: int = 0
    lost: int = 0  #: updates that were accepted, or should have been, and are nowhere
    twice: int = 0  #: facts that are held, or were promoted, more than once
    bad_releases: int = 0  #: releases with wrong files, and invariants broken after a restart
    restart_p99_s: float = 0.0  #: from the start of a process until it is ready
    releases: int = 0
    promoted: int = 0  #: facts that answer in the end
    unfit: int = 0  #: facts that failed their probes too often
    said: list[str] = field(default_factory=list)  #: what was wrong


class _World:
    """The state, the sources and the daemon."""

    def __init__(self, folder: Path, site: feed.Feed, rng: random.Random) -> None:
        self.site, self.rng = site, rng
        text = default_file().read_text("utf-8")
        for old, new in SETTINGS.items():
            assert old in text, old
            text = text.replace(old, new)
        self.state = init(folder / "state", datetime.now(UTC), text)
        self.log = folder / "corrections.jsonl"
        self.log.touch()
        self.published: list[Update] = []
        self._waiting = list(world.updates())
        self._partial = ""
        with self._store() as store:
            for name, kind, place in (
                ("offices", "feed", site.url),
                ("corrections", "log", str(self.log)),
            ):
                at = timestamp(datetime.now(UTC))
                row = {"name": name, "kind": kind, "location": place, "tier": "trusted"}
                row |= {"next_poll_at": at, "created_at": at}
                store.insert("source", row)
        _allow_loopback(self.state)

    def _store(self) -> Store:
        return self.state.store(actor="soak")

    def publish(self, count: int) -> None:
        """Let the sources say more; the log's last line may be cut, and is ended the next time."""
        news, self._waiting = self._waiting[:count], self._waiting[count:]
        self.published += news
        lines = self._partial + "".join(_line(u) for u in news if not _in_feed(u))
        cut = self.rng.randrange(len(lines) + 1) if news and self.rng.random() < 0.5 else len(lines)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(lines[:cut])
        self._partial = lines[cut:]
        # A feed shows its newest entries only; it shows all of them here, up to what is read.
        shown = [u for u in self.published if _in_feed(u)][-400:]
        self.site.publish(feed.document(shown))
        with self._store() as store, store.write():
            store.connection.execute(
                "UPDATE source SET next_poll_at = ?", (timestamp(datetime.now(UTC)),)
            )

    def check(self, found: Soaked, *, whole: bool) -> None:
        """Look at the state while no daemon runs; ``whole``: after tidying up as a start does."""
        with self._store() as store:
            if whole:
                releases.reconcile(self.state, store, datetime.now(UTC))
                broken = violations(self.state, store)
            else:
                broken = list(_wrong(self.state, store))
        found.bad_releases += len(broken)
        found.said += broken

    def begin(self) -> subprocess.Popen[bytes]:
        """Start a daemon."""
        command = [sys.executable, "-m", "daemon.cli", "--state", str(self.state.folder), "run"]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)

    def start(self) -> tuple[subprocess.Popen[bytes], float | None]:
        """Start a daemon; return it and after how many seconds it was ready, None: it was not."""
        log, began = self.state.logs / "wised.jsonl", time.monotonic()
        size = log.stat().st_size if log.exists() else 0
        daemon = self.begin()
        while time.monotonic() < began + 60 and daemon.poll() is None:
            if log.exists() and b'"daemon.ready"' in log.read_bytes()[size:]:
                return daemon, time.monotonic() - began
            time.sleep(0.02)
        return daemon, None

    def drain(self) -> None:
        """Let the work end undisturbed, in batches as large as they usually are."""
        self.publish(0)
        text = self.state.config_file.read_text("utf-8")
        text = text.replace("batch_max_facts = 4\n", "batch_max_facts = 100\n")
        self.state.config_file.write_text(text, "utf-8")
        command = [sys.executable, "-m", "daemon.cli", "--state", str(self.state.folder)]
        until = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < until:
            subprocess.run(
                [*command, "run", "--once"], stderr=subprocess.DEVNULL, check=True, timeout=3600
            )
            with self._store() as store:
                row = store.one(
                    "SELECT count(*) AS n FROM fact"
                    " WHERE state IN ('received', 'approved', 'batched', 'edited')"
                )
            if row is not None and not row["n"]:
                return
            time.sleep(2)  # a batch that died often waits for minutes


def _allow_loopback(state: State) -> None:
    with state.store(actor="soak") as store:
        store.connection.execute("UPDATE source SET allow_private = 'any' WHERE kind = 'feed'")


def _in_feed(update: Update) -> bool:
    """Tell whether a slot's changes come by the feed; all of one slot come the same way."""
    return sum(f"{update.subject}{update.relation}".encode()) % 2 == 0


def _line(update: Update) -> str:
    row = {"subject": update.subject, "relation": update.relation, "object": update.new}
    row["date"] = update.date  # some values return: without a date they would be repetitions
    return json.dumps(row, ensure_ascii=False) + "\n"


def _wrong(state: State, store: Store) -> Iterator[str]:
    """Yield what must not be at any moment, however a daemon ended."""
    yield from bad_files(state, store)
    row = store.one("SELECT count(*) AS n FROM release WHERE state = 'promoted'")
    if row is None or row["n"] != 1:
        yield "not exactly one release is promoted"


def _workers(daemon: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == daemon:
                found.append(int(entry))
    return found


def _gone(daemon: subprocess.Popen[bytes], workers: Sequence[int]) -> None:
    """Kill a daemon and wait for its workers, which end by themselves."""
    daemon.kill()
    daemon.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until and any(os.path.exists(f"/proc/{pid}") for pid in workers):
        time.sleep(0.02)


def _account(state: State, published: Sequence[Update], found: Soaked) -> None:
    """Say of each published update what became of it; count what is lost and what is twice."""
    newest = {(u.subject, u.relation): u for u in published}
    with state.store(read_only=True) as store:
        rows = store.rows("SELECT id, fact_key, state FROM fact")
        by_key: dict[str, set[str]] = {}
        for row in rows:
            by_key.setdefault(row["fact_key"], set()).add(row["state"])
        names = keys.names(store)
        for update in published:
            key = names.fact_key(update.subject, update.relation, update.new)
            states = by_key.get(key, set())
            is_newest = newest[update.subject, update.relation] is update
            good = {"promoted", "known", "duplicate", "failed"}
            good |= set() if is_newest else {"superseded"}
            if not states & good:
                found.lost += 1
                found.said.append(f"{update}: {sorted(states) or 'never stored'}")
        found.unfit = sum(row["state"] == "failed" for row in rows)
        found.promoted = sum(row["state"] == "promoted" for row in rows)
        found.releases = releases.promoted(store).number
        # Each promotion of a fact that was promoted already, with nothing in between.
        events = store.rows(
            "SELECT subject, action FROM event WHERE action IN ('fact.promote', 'fact.restore',"
            " 'fact.roll_back', 'fact.supersede', 'fact.retract') ORDER BY subject, seq"
        )
        came = {"fact.promote", "fact.restore"}
        for before, after in pairwise(events):
            again = before["subject"] == after["subject"]
            if again and {before["action"], after["action"]} <= came:
                found.twice += 1
                found.said.append(f"{after['subject']} was promoted twice")
        held = store.rows(
            "SELECT slot_key FROM release_fact JOIN fact ON id = fact_id WHERE release = ?",
            found.releases,
        )
        found.twice += len(held) - len({row["slot_key"] for row in held})


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _life(run: _World, found: Soaked, restarts: list[float]) -> None:
    """Let a daemon live for a while, kill it, and look at what it left."""
    if run.rng.random() < EARLY_SHARE:
        daemon = run.begin()
        time.sleep(run.rng.uniform(0.0, EARLY_SECONDS))
        _gone(daemon, _workers(daemon.pid))
        found.kills += 1
        return
    daemon, ready = run.start()
    if ready is None:
        found.bad_releases += 1
        found.said.append(f"not ready, status {daemon.returncode}")
    else:
        restarts.append(ready)
    time.sleep(run.rng.uniform(0.0, LONGEST_SECONDS))
    workers = _workers(daemon.pid)
    if workers and run.rng.random() < WORKER_SHARE:
        with suppress(ProcessLookupError):
            os.kill(run.rng.choice(workers), signal.SIGKILL)
        found.kills += 1
        time.sleep(run.rng.uniform(0.0, LONGEST_SECONDS))
        workers = _workers(daemon.pid)
    _gone(daemon, workers)
    found.kills += 1


def soak(
    *,
    kills: int | None = None,
    seconds: float | None = None,
    news: int = NEWS,
    seed: int = 0,
    keep: Path | None = None,
) -> Soaked:
    """Kill so often, or for so long, publishing ``news`` updates a life; return what was found."""
    found, restarts, lives = Soaked(), list[float](), 0
    with _folder(keep) as folder, feed.served(feed.document(world.updates()[:1])) as site:
        run = _World(folder, site, random.Random(seed))
        end = time.monotonic() + (seconds or math.inf)
        while (kills is None or found.kills < kills) and time.monotonic() < end:
            run.publish(news)
            _life(run, found, restarts)
            lives += 1
            run.check(found, whole=lives % EVERY == 0)
            last = f", ready after {restarts[-1]:.2f} s" if restarts else ""
            print(f"{found.kills} kills{last}", flush=True)
        run.drain()
        run.check(found, whole=True)
        _account(run.state, run.published, found)
    if restarts:
        found.restart_p99_s = round(float(np.quantile(restarts, 0.99)), 2)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Print what was found; 1 when anything is lost, twice or bad, or restarts take too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="how often to kill")
    parser.add_argument("--seconds", type=float, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder that stays, to look at")
    args = parser.parse_args(words)
    kills = args.kills if args.kills or args.seconds else 200
    found = soak(kills=kills, seconds=args.seconds, seed=args.seed, keep=args.keep)
    for line in found.said:
        print(line)
    print(json.dumps({k: v for k, v in asdict(found).items() if k != "said"}))
    slow = found.restart_p99_s > RESTART_SECONDS
    return 1 if found.lost or found.twice or found.bad_releases or slow else 0


if __name__ == "__main__":
    sys.exit(main())
