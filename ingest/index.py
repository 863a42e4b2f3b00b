"""The nearest of many vectors: a graph of small worlds (HNSW), by usearch.

It is made from the store and never saved, so it is never the only copy. What it was chosen over,
and what each costs at a million vectors, stands in docs/decisions.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from usearch.index import Index as Graph

#: half the memory of float32; cosines are right to three digits
_DTYPE = "f16"
#: links a vector has, and candidates looked at when one is added and when one is searched for
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 64, 256
#: So many are compared one by one, which takes no longer than the graph (.3 ms at 4,000 of 384),
#: and are linked by one thread: those that several threads link at once don't see each other, and
#: of graphs of 48 vectors made by two threads one in sixteen had lost some.
_FEW = 4096


class Index:
    """Unit vectors of one width by id, in memory. One thread at a time."""

    def __init__(self, width: int) -> None:
        """Start without any vector."""
        self.width = width
        self._graph = Graph(
            ndim=width,
            metric="cos",
            dtype=_DTYPE,
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return len(self._graph)

    def add(self, ids: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Add (n, width) rows of length 1 under n ids that are not there yet.

        Raises ValueError when the shape is another.
        """
        if vectors.shape != (len(ids), self.width):
            raise ValueError(f"{len(ids)} ids, vectors {vectors.shape}, width {self.width}")
        keys, few = np.asarray(ids, np.uint64), max(0, _FEW - len(self))
        if len(keys[:few]):
            self._graph.add(keys[:few], vectors[:few], threads=1)
        if len(keys[few:]):
            self._graph.add(keys[few:], vectors[few:], threads=os.cpu_count() or 1)

    def search(
        self,
        vectors: npt.NDArray[np.float32],  # (m, width), rows of length 1
        k: int,
        floor: float,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return (m, k) ids and cosines, the nearest first.

        Where fewer than k reach ``floor`` the rest are -1 and -inf.
        """
        ids = np.full((len(vectors), k), -1, np.int64)
        cosines = np.full((len(vectors), k), -np.inf, np.float32)
        for row, query in enumerate(vectors if len(self) else ()):
            found = self._graph.search(query, min(k, len(self)), exact=len(self) <= _FEW)
            near = 1 - np.asarray(found.distances, np.float32)
            above = near >= floor
            count = int(above.sum())
            ids[row, :count], cosines[row, :count] = found.keys[above], near[above]
        return ids, cosines
