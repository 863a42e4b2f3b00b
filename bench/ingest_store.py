"""What storing feeds costs: ``python -m bench.ingest_store``.

10,000 entries over HTTP on loopback, 500 a document, through the daemon's own polling: fetched,
parsed, normalised, searched for facts, stored with their evidence and audit events. A process of
its own, so that its memory can be measured. The last line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

from daemon import polling
from daemon.state import init
from daemon.store import Store, facts, timestamp
from demo import feed, world
from ingest.entries import MAX_ENTRIES

ENTRIES = 10_000
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stored:
    """What storing took."""

    entries: int
    facts: int
    seconds: float
    peak_mb: float  #: resident, of this process and of its largest child together


def documents() -> Iterator[bytes]:
    """Yield Atom documents of 500 entries: a change of an office above a passage of text."""
    prose, updates = cycle(world.prose()), cycle(world.updates())
    for first in range(0, ENTRIES, MAX_ENTRIES):
        root = ET.Element(f"{{{feed.ATOM}}}feed")
        ET.SubElement(root, f"{{{feed.ATOM}}}title").text = "Offices"
        ET.SubElement(root, f"{{{feed.ATOM}}}id").text = "tag:factbook.example,2024:offices"
        ET.SubElement(root, f"{{{feed.ATOM}}}updated").text = START.isoformat()
        for number in range(first, min(first + MAX_ENTRIES, ENTRIES)):
            update = next(updates)
            entry = ET.SubElement(root, f"{{{feed.ATOM}}}entry")
            name = f"tag:factbook.example,2024:{number}"
            ET.SubElement(entry, f"{{{feed.ATOM}}}id").text = name
            label = feed.LABELS[update.relation]
            said = f"{update.subject}: {label} is now {update.new} {number} (was {update.old})"
            ET.SubElement(entry, f"{{{feed.ATOM}}}title").text = said
            ET.SubElement(entry, f"{{{feed.ATOM}}}updated").text = START.isoformat()
            content = ET.SubElement(entry, f"{{{feed.ATOM}}}content", type="html")
            content.text = f"<p>{next(prose)}</p><p>{next(prose)}</p>"
        yield ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _source(store: Store, url: str) -> polling.Source:
    row = {
        "name": "offices",
        "kind": "feed",
        "location": url,
        "tier": "trusted",
        "allow_private": "127.0.0.0/8",
        "next_poll_at": timestamp(START),
        "created_at": timestamp(START),
    }
    with store.write():
        store.insert("source", row)
    (source,) = polling.due(store, START)
    return source


def measure() -> Stored:
    """Poll one feed that brings another document each time."""
    bodies = list(documents())
    with tempfile.TemporaryDirectory() as folder, feed.served(b"") as server:
        state = init(Path(folder) / "state", START)
        config = state.config()
        extract = polling.extractor(config)
        with state.store() as store:
            source, seconds = _source(store, server.url), 0.0
            for turn, body in enumerate(bodies):
                server.publish(body)
                now = START + timedelta(days=turn)
                began = time.perf_counter()
                found = polling.poll(store, source, config, extract, now)
                seconds += time.perf_counter() - began
                assert found.error is None, found.error
            row = store.one("SELECT count(*) AS n FROM entry")
            received = sum(facts.counts(store).values())
    assert row is not None
    # A process begins with the peak of the one that started it, by `getrusage`; not so by this.
    status = Path("/proc/self/status").read_text("utf-8")
    own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    peak = own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kilobytes
    return Stored(row["n"], received, seconds, peak / 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
