"""A day of a daemon under a fake clock: ``python -m bench.day``.

50 feeds over HTTP on loopback, polled as configured for 24 hours that pass as fast as the machine
goes, with facts for triage by the real worker; scheduler, observer, `status.json` and log are those
of a daemon. Each hour this process's memory, descriptors and threads are looked at. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from statistics import median
from unittest.mock import patch
from xml.sax.saxutils import escape

from daemon import log as status_log
from daemon import service as services
from daemon.loop import Loop
from daemon.observe.observer import observed
from daemon.service import Service
from daemon.state import init
from daemon.store import Store, timestamp
from demo import world

START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=1)
SETTLED_HOURS = 4  #: until caches are warm
CHANGES = 6  #: a feed brings something new every so many polls
WINDOW = 20  #: items that a feed shows


@dataclass(frozen=True, slots=True)
class Day:
    """What a day took."""

    hours: int
    sources: int
    entries: int
    facts: int
    rss_mb: tuple[float, ...]  #: at each hour
    descriptors: tuple[int, ...]
    threads: tuple[int, ...]

    @property
    def drift(self) -> float:
        """Return the largest departure of memory from its median, once settled."""
        settled = self.rss_mb[SETTLED_HOURS:] or self.rss_mb
        middle = median(settled)
        return max(abs(one - middle) for one in settled) / middle


class Clock:
    """Wall and monotonic time that go on only when told."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        """Return the wall time."""
        return START + self.passed

    def monotonic(self) -> float:
        """Return seconds."""
        return self.passed.total_seconds()


@contextmanager
def _site() -> Iterator[str]:
    """Serve a feed at each path, which changes every `CHANGES` polls; yield the address."""
    asked: dict[str, int] = {}
    news = cycle(world.updates())
    shown: dict[str, list[str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            count = asked[self.path] = asked.get(self.path, -1) + 1
            etag = f'"{count // CHANGES}"'
            items = shown.setdefault(self.path, [])
            if count % CHANGES == 0:
                update = next(news)
                title = f"{update.subject}: head of government is now {update.new}"
                guid = f"{self.path}/{count}"
                items.insert(0, f"<item><guid>{guid}</guid><title>{escape(title)}</title></item>")
                del items[WINDOW:]
            fresh = self.headers.get("If-None-Match") == etag
            text = f'<rss version="2.0"><channel><title>x</title>{"".join(items)}</channel></rss>'
            body = b"" if fresh else text.encode()
            self.send_response(304 if fresh else 200)
            self.send_header("ETag", etag)
            if not fresh:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _add_sources(store: Store, url: str, count: int) -> None:
    for number in range(count):
        at = timestamp(START + timedelta(seconds=37 * number))
        row = {"name": f"feed{number}", "kind": "feed", "location": f"{url}/{number}"}
        row |= {"tier": "normal", "allow_private": "any", "next_poll_at": at, "created_at": at}
        store.insert("source", row)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(hours: int, sources: int) -> Day:
    """Let a daemon's loop live for so many hours."""
    clock = Clock()
    rss: list[float] = []
    descriptors: list[int] = []
    threads: list[int] = []
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory())
        url = held.enter_context(_site())
        held.enter_context(patch.object(services, "now", clock.now))
        state = init(Path(folder) / "state", START)
        store = held.enter_context(state.store())
        _add_sources(store, url, sources)
        config = state.config()
        log = status_log.setup(state.logs, config.log)
        held.callback(status_log.close)
        service = Service(state, store, config, log)
        watch = (state, config.metrics, log, service.pulse, service.asked, os.environ)
        held.enter_context(observed(*watch))
        held.callback(service.close)
        service.start()
        loop = Loop(service, service.asked, services.STAGES, log, clock.now, clock.monotonic)
        loop.ticks.start()
        held.callback(loop.ticks.stop)
        for minute in range(hours * 60):
            clock.passed += STEP
            for kind in ("ingest", "read", "edit"):
                loop.ticks.flag(kind)
            loop.step()
            if minute % 60 == 59:
                gc.collect()
                rss.append(round(_resident_mb(), 1))
                descriptors.append(len(os.listdir("/proc/self/fd")))
                threads.append(threading.active_count())
                print(f"hour {minute // 60 + 1}: {rss[-1]} MB", flush=True)
        row = store.one("SELECT count(*) AS n FROM fact")
        entries = store.one("SELECT count(*) AS n FROM entry")
    assert row is not None and entries is not None
    return Day(
        hours, sources, entries["n"], row["n"], tuple(rss), tuple(descriptors), tuple(threads)
    )


def main(words: Sequence[str] | None = None) -> int:
    """Print what was measured; 1 when memory, descriptors or threads did not stay flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--sources", type=int, default=50)
    args = parser.parse_args(words)
    day = measure(args.hours, args.sources)
    print(json.dumps({**asdict(day), "drift": round(day.drift, 4)}))
    flat = day.drift <= 0.05 and len(set(day.descriptors[SETTLED_HOURS:])) <= 1
    return 0 if flat and len(set(day.threads[SETTLED_HOURS:])) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
