"""How the reader of feeds stands up to real documents: ``python -m bench.documents FOLDER``.

Every file below FOLDER is parsed as a feed in a process of its own, within 5 s and 200 MB. It is
parsed, refused with an error that names why, or failed: anything else, a crash and an overrun
included. Exits 1 when any failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import feedparser  # noqa: F401 - loaded once here, and not again in every child

from ingest import feed
from ingest.errors import FeedError

SECONDS = 5.0
BYTES = 200 * 1024 * 1024  #: of address space
#: dates are judged by it; the documents' own lie before it
NOW = datetime(2026, 1, 1, tzinfo=UTC)
_REFUSED = 3  #: exit status of a child; Python's own for an uncaught exception is 1


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a folder's documents."""

    parsed: int
    refused: int  #: with a typed error
    failed: tuple[str, ...]  #: paths, each with what happened


def _parse(path: Path) -> None:
    """Parse one document, as the process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    try:
        feed.parse(path.read_bytes(), None, NOW)
    except FeedError:
        sys.exit(_REFUSED)


def outcome(path: Path) -> str:
    """Return ``parsed``, ``refused``, or what went wrong."""
    child = multiprocessing.get_context("fork").Process(target=_parse, args=(path,))
    child.start()
    child.join(SECONDS)
    if child.exitcode is None:
        child.kill()
        child.join()
        return f"not done in {SECONDS:g} s"
    known = {0: "parsed", _REFUSED: "refused"}
    return known.get(child.exitcode, f"ended with {child.exitcode}")


def check(folder: Path) -> Counts:
    """Parse every file below a folder; raises FileNotFoundError when there is none.

    Raises RuntimeError in a process that leaves its children no room under the limit.
    """
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    if pages * resource.getpagesize() > BYTES / 2:
        raise RuntimeError("this process is too large to fork parsers: run bench.documents alone")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise FileNotFoundError(f"{folder}: no documents to parse")
    found = {path: outcome(path) for path in paths}
    said = list(found.values())
    failed = [f"{p}: {what}" for p, what in found.items() if what not in ("parsed", "refused")]
    return Counts(said.count("parsed"), said.count("refused"), tuple(failed))


def main(words: Sequence[str] | None = None) -> int:
    """Print the counts as JSON, after the documents that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of feed documents")
    counts = check(parser.parse_args(words).folder)
    for line in counts.failed:
        print(line, file=sys.stderr)
    print(json.dumps({**asdict(counts), "failed": len(counts.failed)}))
    return 1 if counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
