"""A decade in one sitting: ``python -m bench.lifelong`` streams 1,100 updates through the daemon.

The updates reach it in date order as an Atom feed over HTTP on loopback, 50 at a time; triage,
batches, shards, compaction, gate and releases are the daemon's own, with its default
configuration. Asked every 100 updates, by free greedy generation through the router, exact match
of the whole answer. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import lifelong_operator, lifelong_plot
from bench.lifelong_stream import BATCH, FAR_THEN, LOOK_EVERY, NEAR_THEN, Row, Stream
from bench.lifelong_world import first_facts
from demo import feed, world

if TYPE_CHECKING:
    from bench.lifelong_paper import PaperRow

ENDS = 5  #: cycles at each end that are compared


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
