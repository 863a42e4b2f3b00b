"""The nearest of many vectors: signs propose, the vectors decide.

A vector's signs are one bit a dimension, and the share of bits that differ between two vectors is
about their angle over pi. Looking at all signs takes 8 ms a million; the cosines of the few that
come closest are then computed. There is no graph: adding costs nothing, and the index of a
million facts is made anew in seconds. Compared with graph indexes in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

#: rows of a block; the signs of one word of each, and what is computed of them, fit a core's cache
BLOCK = 65_536
#: vectors whose cosines are computed for one query; 100 gave the same recall on the factbook
PROPOSED = 512
_WORD = 64  #: bits


@dataclass(slots=True)
class _Block:
    """Rows of the index, the first ``size`` of them in use."""

    ids: npt.NDArray[np.int64]  # (BLOCK,)
    signs: npt.NDArray[np.uint64]  # (words, BLOCK): a word of all rows lies together
    rows: npt.NDArray[np.float16]  # (BLOCK, width)
    size: int = 0


def _signs(vectors: npt.NDArray[np.float32], words: int) -> npt.NDArray[np.uint64]:
    """Return the signs of (n, width) vectors as (words, n); missing dimensions count as zeros."""
    bits = np.zeros((len(vectors), words * _WORD), bool)
    np.greater(vectors, 0, out=bits[:, : vectors.shape[1]])
    packed = np.packbits(bits, axis=1).view(np.uint64)
    return np.ascontiguousarray(packed.T)


@dataclass(slots=True)
class Index:
    """Unit vectors of one width by id, in memory; 0.8 GB hold a million of 384 dimensions.

    It is never the only copy, so there is nothing to save. One thread at a time.
    """

    width: int
    _blocks: list[_Block] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return sum(block.size for block in self._blocks)

    @property
    def _words(self) -> int:
        return -(-self.width // _WORD)

    def add(self, ids: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Add (n, width) rows of length 1 under n ids that are not there yet.

        Keeps copies in float16. Raises ValueError when the shape is another.
        """
        if vectors.shape != (len(ids), self.width):
            raise ValueError(f"{len(ids)} ids, vectors {vectors.shape}, width {self.width}")
        start = 0
        while start < len(ids):
            block = self._open_block()
            part = slice(start, start + BLOCK - block.size)
            place = slice(block.size, block.size + len(vectors[part]))
            block.ids[place] = np.asarray(ids[part])
            block.rows[place] = vectors[part]
            block.signs[:, place] = _signs(vectors[part], self._words)
            block.size, start = place.stop, part.stop

    def search(
        self,
        vectors: npt.NDArray[np.float32],  # (m, width), rows of length 1
        k: int,
        floor: float,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return (m, k) ids and cosines, the nearest first; equals in the order of their adding.

        Where fewer than k reach ``floor`` the rest are -1 and -inf. Up to `PROPOSED` vectors, or
        4 k where that is more, the answer is exact.
        """
        ids = np.full((len(vectors), k), -1, np.int64)
        cosines = np.full((len(vectors), k), -np.inf, np.float32)
        signs = _signs(vectors, self._words)
        for row, query in enumerate(vectors):
            near, score = self._proposed(query, signs[:, row], max(PROPOSED, 4 * k))
            (above,) = np.nonzero(score >= floor)
            best = above[np.argsort(-score[above], kind="stable")[:k]]
            ids[row, : len(best)], cosines[row, : len(best)] = near[best], score[best]
        return ids, cosines

    def _open_block(self) -> _Block:
        """Return a block with room; its pages are only taken as they are written."""
        if not self._blocks or self._blocks[-1].size == BLOCK:
            signs = np.empty((self._words, BLOCK), np.uint64)
            rows = np.empty((BLOCK, self.width), np.float16)
            self._blocks.append(_Block(np.empty(BLOCK, np.int64), signs, rows))
        return self._blocks[-1]

    def _proposed(
        self, query: npt.NDArray[np.float32], signs: npt.NDArray[np.uint64], least: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return ids and cosines of at least ``least`` vectors (or all) with the nearest signs."""
        distances = list(map(partial(_distances, signs=signs), self._blocks))
        cut = _cut(distances, least, bits=self._words * _WORD)
        found = [
            (block.ids[near], block.rows[near].astype(np.float32) @ query)
            for block, near in zip(self._blocks, _within(distances, cut), strict=True)
        ]
        nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
        ids, scores = zip(nothing, *found, strict=True)
        return np.concatenate(ids), np.concatenate(scores)


def _distances(block: _Block, signs: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Return in how many signs (words,) each of the block's vectors differs."""
    total = np.zeros(block.size, np.uint16)
    differ = np.empty(block.size, np.uint64)
    count = np.empty(block.size, np.uint8)
    for word, sign in zip(block.signs, signs, strict=True):
        np.bitwise_xor(word[: block.size], sign, out=differ)
        total += np.bitwise_count(differ, out=count)
    return total


def _cut(distances: Sequence[npt.NDArray[np.uint16]], least: int, bits: int) -> int:
    """Return the smallest distance within which ``least`` vectors lie, or all."""
    counts = np.zeros(bits + 1, np.int64)
    for part in distances:
        counts += np.bincount(part, minlength=bits + 1)
    return int(np.searchsorted(np.cumsum(counts), least))


def _within(
    distances: Sequence[npt.NDArray[np.uint16]], cut: int
) -> Iterator[npt.NDArray[np.intp]]:
    for part in distances:
        yield np.flatnonzero(part <= cut)
