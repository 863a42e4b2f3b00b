"""Deduplication, storing and parsing at scale: ``python -m bench.ingest``.

Labelled pairs through triage, the index at 100,000 and a million vectors, the worker's embedding
beside plain encoding, 10,000 feed entries stored; with --documents FOLDER, real feeds parsed. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench import ingest_dedup, ingest_embed

SIZES = (100_000, 1_000_000)
EMBEDDED = 1000  #: texts of a round


def _alone(module: str, *words: str) -> dict[str, Any]:
    """Run a part of the bench in a process of its own; return its last line's object."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if not lines:
        raise RuntimeError(f"{module} ended with {done.returncode} and said nothing")
    last = lines[-1]
    print(f"{module} {' '.join(words)}: {last}", flush=True)
    found: dict[str, Any] = json.loads(last)
    return found


def _dedup(folder: Path) -> dict[str, Any]:
    """Judge the pairs; print how each kind came out."""
    judged = ingest_dedup.judged(folder / "state")
    for line in ingest_dedup.by_kind(judged):
        print(line, flush=True)
    return {k: round(v, 4) for k, v in asdict(ingest_dedup.score(judged)).items()}


def measure(folder: Path, sizes: Sequence[int], feeds: Path | None) -> dict[str, Any]:
    """Return all figures, those of the index in processes of their own."""
    dedup = _dedup(folder)
    texts, vectors = ingest_dedup.embedded(folder / "state")
    real = folder / "real.npy"
    np.save(real, vectors)
    lookups = [_alone("bench.ingest_index", str(real), str(size)) for size in sizes]
    stored = _alone("bench.ingest_store")
    found = {
        "dedup": dedup,
        "lookup_p99_ms": {str(one["count"]): round(one["p99_ms"], 2) for one in lookups},
        "lookup_recall": {str(one["count"]): round(one["recall"], 4) for one in lookups},
        "index_build_s": {str(one["count"]): round(one["build_s"], 1) for one in lookups},
        "index_gb": round(lookups[-1]["gb"], 3),
        "embed_ratio": round(ingest_embed.ratio(texts[:EMBEDDED]), 3),
        "store": {k: round(v, 1) for k, v in stored.items()},
    }
    if feeds is not None:
        found["documents"] = _alone("bench.documents", str(feeds))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, help="a folder of feed documents to parse")
    parser.add_argument("--small", action="store_true", help="no index of a million")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        sizes = SIZES[:1] if args.small else SIZES
        print(json.dumps(measure(Path(folder), sizes, args.documents)))


if __name__ == "__main__":
    main()
