"""Two small releases of fixed numbers, one of each kind of memory, and their golden folders.

``golden/keyed`` and ``golden/paper`` were written by ``python tests/wise/handmade.py``, which
writes them anew where the format changes on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import wise
from wise import manifest, paper

GOLDEN = Path(__file__).resolve().parent / "golden"
SITE = wise.Site(
    "model.layers.1.mlp.down_proj", "model.layers", 1, d_in=6, d_out=4, transposed=False
)
SHA = "ab" * 32
#: of the keyed release: two shards, of the first of which one fact of two is gone
COLUMNS = ((0, 2, 5), (1, 2))
DELTAS = (
    ((1.5, -2.0, 0.25), (0.0, 0.5, -0.125), (3.0, 1.0, -1.0), (0.75, -0.75, 8.0)),
    ((1.0, -1.0), (2.0, -2.0), (4.0, -4.0), (0.5, -0.5)),
)
CENTER, SCALE = (0.0, 0.25, 0.5, -0.25, 1.0, 2.0), (1.0, 0.5, 2.0, 1.0, 0.25, 1.0)
MAP = (
    (1.0, 0.0, 0.0, 2.0, 0.0, 0.5),
    (0.0, 1.0, 0.0, -2.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 0.0, 4.0, 0.0),
)
KEYS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (0.0, 0.6, 0.8))
KEY_FACT = (0, 1, 2, 2)
IDS, SPANS, SHARD_OF = (11, 12, 40), (2, 3, 1), (0, 1, 1)
CALIBRATION = wise.Calibration(0.8125, 100, 0.5, 0.9375, 0.0, 0.03125, 250)
#: of the paper release: two shards of the first batch, one of the second, 6 of 24 entries each
SEEDS, RHO, EPSILONS = (3, 4, 5), 0.25, (12.5, 11.25, 20.0)
VALUES = (
    (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
    (-1.0, -2.0, -3.0, -4.0, -5.0, -6.0),
    (0.5, 0.25, 0.125, -0.5, -0.25, -0.125),
)


def keyed() -> wise.Release:
    """A release with a learned map and bfloat16 shards."""
    shards = tuple(
        wise.Shard(torch.tensor(columns), torch.tensor(delta, dtype=torch.bfloat16))
        for columns, delta in zip(COLUMNS, DELTAS, strict=True)
    )
    space = wise.Space(torch.tensor(CENTER), torch.tensor(SCALE), torch.tensor(MAP))
    keys = wise.Keys(torch.tensor(KEYS), torch.tensor(KEY_FACT))
    spans, homes = torch.tensor(SPANS), torch.tensor(SHARD_OF)
    memory = wise.SideMemory(shards, space, keys, spans, homes, CALIBRATION.threshold)
    return wise.Release(SITE, memory, IDS, "tiny", SHA, CALIBRATION, (2, 2))


def published() -> wise.Release:
    """A release of the paper's method with float16 shards."""
    one, two, three = (
        paper.PaperShard((seed,), RHO, torch.tensor(values, dtype=torch.float16), epsilon)
        for seed, values, epsilon in zip(SEEDS, VALUES, EPSILONS, strict=True)
    )
    memory = paper.PaperMemory(((one, two), (three,)), paper.Mode.RETRIEVE, 0.5, "sign", 0.75)
    return wise.Release(SITE, memory, IDS, "tiny", SHA, None, (2, 1))


RELEASES = {"keyed": keyed, "paper": published}


def write(release: wise.Release, folder: Path) -> None:
    """Write and seal a release in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    release.save(folder)
    (folder / "facts.jsonl").write_text('{"id": 11}\n{"id": 12}\n{"id": 40}\n', "utf-8")
    manifest.seal(folder, {"release": 7, "parent": 6})


if __name__ == "__main__":
    for name, make in RELEASES.items():
        write(make(), Path(sys.argv[1] if len(sys.argv) > 1 else GOLDEN) / name)
