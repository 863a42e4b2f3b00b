"""The index of vectors at a size: ``python -m bench.ingest_index REAL.npy COUNT``.

Vectors of COUNT facts are mixed from those of real sentences, which lie near each other. A
process of its own, so that its memory can be measured. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest import Index

Vectors = npt.NDArray[np.float32]  #: (n, width), rows of length 1

SEED = 5
PART = 50_000  #: vectors made at once
QUERIES = 400  #: half of them near a vector that is held, half facts of their own
NEAR = 0.45  #: noise of the former: their cosine to what is held is about .91
NOISE = 0.35  #: at most, of the others and of what is held
NEIGHBOURS, FLOOR = 5, 0.55  #: as the default configuration has it


@dataclass(frozen=True, slots=True)
class Lookup:
    """What an index of a size does."""

    count: int
    p50_ms: float
    p99_ms: float
    recall: float  #: of the 5 nearest, against looking at all
    build_s: float
    gb: float  #: resident


def _unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Vectors:
    return _unit(rng.standard_normal(shape, dtype=np.float32))


def mixed(real: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """Return vectors that lie among the real ones as those lie among each other.

    A real vector, moved towards one that stands near it in the list, mostly of the same subject
    or the same office; and noise of a length of its own.
    """
    one = rng.integers(0, len(real), count)
    other = np.clip(one + rng.integers(-30, 31, count), 0, len(real) - 1)
    share = rng.uniform(0.5, 1, (count, 1)).astype(np.float32)
    made = _unit(share * real[one] + (1 - share) * real[other])
    spread = NOISE * rng.uniform(0.3, 1, (count, 1)).astype(np.float32)
    return _unit(made + spread * _noise(made.shape, rng))


def _parts(real: Vectors, count: int) -> Iterator[tuple[int, Vectors]]:
    for start in range(0, count, PART):
        rng = np.random.default_rng((SEED, start))
        yield start, mixed(real, min(PART, count - start), rng)


def _queries(real: Vectors, count: int) -> Vectors:
    rng = np.random.default_rng(SEED)
    _, held = next(_parts(real, count))
    near = held[rng.choice(len(held), QUERIES // 2, replace=False)]
    near = near + NEAR * _noise(near.shape, rng)
    return np.concatenate([_unit(near), mixed(real, QUERIES - len(near), rng)])


def _nearest(real: Vectors, count: int, queries: Vectors) -> npt.NDArray[np.int64]:
    """Return the ids of each query's nearest vectors, by looking at all: (queries, NEIGHBOURS)."""
    best = np.full((len(queries), NEIGHBOURS), -np.inf, np.float32)
    ids = np.full((len(queries), NEIGHBOURS), -1, np.int64)
    for start, vectors in _parts(real, count):
        scores = np.concatenate([best, queries @ vectors.T], axis=1)
        new = np.arange(start, start + len(vectors))
        known = np.concatenate([ids, np.broadcast_to(new, (len(queries), len(new)))], axis=1)
        top = np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        best, ids = np.take_along_axis(scores, top, 1), np.take_along_axis(known, top, 1)
    return ids


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text("utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def measure(real: Vectors, count: int) -> Lookup:
    """Build an index of ``count`` vectors and look up queries one by one."""
    queries = _queries(real, count)
    right = _nearest(real, count, queries)
    index, before, built = Index(real.shape[1]), _resident(), 0.0
    for start, vectors in _parts(real, count):
        began = time.perf_counter()
        index.add(range(start, start + len(vectors)), vectors)
        built += time.perf_counter() - began
    del vectors
    resident = _resident() - before
    took, found = [], 0
    for query, truth in zip(queries, right, strict=True):
        began = time.perf_counter()
        ids, _ = index.search(query[None], NEIGHBOURS, FLOOR)
        took.append(1000 * (time.perf_counter() - began))
        found += len(set(ids[0].tolist()) & set(truth.tolist()))
    p50, p99 = np.quantile(took, [0.5, 0.99])
    return Lookup(count, float(p50), float(p99), found / right.size, built, resident / 1e9)


def main(words: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path, help="vectors of real sentences, float32")
    parser.add_argument("count", type=int)
    args = parser.parse_args(words)
    print(json.dumps(asdict(measure(np.load(args.real, allow_pickle=False), args.count))))


if __name__ == "__main__":
    main()
