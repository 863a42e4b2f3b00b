"""The stream as a picture. Contains no measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.lifelong_paper import PaperRow
    from bench.lifelong_stream import Row

SHARES = ("reliability", "generalisation", "locality_near", "stale")


def save(
    path: Path, ours: Sequence[Row], cycles: Sequence[float], paper: Sequence[PaperRow]
) -> None:
    """Write a PNG: shares over updates, seconds a cycle, size; ours drawn through, paper dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (shares, seconds, size) = pyplot.subplots(3, 1, figsize=(7, 9), sharex=True)
    told = [row.updates for row in ours]
    for color, name in zip(("C0", "C1", "C2", "C3"), SHARES, strict=True):
        shares.plot(told, [getattr(row, name) for row in ours], color=color, label=name)
        if paper:
            at = [row.updates for row in paper]
            shares.plot(at, [row.shares[name] for row in paper], color=color, linestyle="--")
    shares.set_ylabel("share of answers\n(dashed: the paper's method)")
    shares.legend(loc="center right")
    batch = told[-1] / max(1, len(cycles))
    seconds.bar([(i + 0.5) * batch for i in range(len(cycles))], cycles, width=0.8 * batch)
    seconds.set_ylabel("seconds a cycle,\ncompaction spread")
    size.plot(told, [row.release_mb for row in ours], label="release on disk")
    size.plot(told, [row.shards for row in ours], label="shards", drawstyle="steps-post")
    size.set_ylabel("MiB; shards")
    size.set_xlabel("updates streamed")
    size.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
