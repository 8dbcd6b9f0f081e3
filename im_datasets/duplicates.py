"""Near-duplicate pruning over embeddings: of two rows that say nearly the same, the better one stays.

Greedy, in the order the rows are offered: a row is a near-duplicate of a row *kept* before it, never of one
that was dropped. Blocked, so that nearly all the work is matrix products, and exact: the outcome is that of
comparing the rows one by one. Knows nothing of texts, models or datasets.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from im_datasets.errors import SelectionError

TOLERANCE = 1e-6
"""Cosines of float32 unit vectors carry rounding of this order; without it identical rows could miss 1.0."""

CHUNK = 8192
"""Kept rows compared with a block at a time: bounds memory to block x CHUNK floats."""

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


class TextEmbedder(Protocol):
    """What turns texts into vectors; ``im_datasets.embedding.Embedder`` is one."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), width)."""

    def describe(self) -> dict[str, Any]:
        """What it is, as plain data for a record."""


class KeptVectors:
    """The vectors of the rows kept so far, best first.

    Args:
        threshold: Cosine in (0, 1]; a row at or above it to a kept row is its near-duplicate. 1 means the
            same vector.

    Example:
        >>> kept = KeptVectors(0.9)
        >>> block = kept.compare(np.array([7, 3]), np.array([[1, 0], [1, 0]], dtype=np.float32))
        >>> block.twin(7)
        -1
        >>> block.keep(7)
        >>> block.twin(3)
        7
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._least = threshold - TOLERANCE
        self._rows: list[int] = []
        self._vectors = np.empty((0, 0), dtype=np.float32)

    def compare(self, rows: Rows, vectors: Vectors) -> "Block":
        """Compare a block of rows with the rows kept so far and with each other.

        Args:
            rows: Row numbers, best first, shape (n,).
            vectors: Unit vectors of these rows, shape (n, width).

        Raises:
            SelectionError: Not one finite unit vector per row.
        """
        _check(rows, vectors)
        places = self._first_alike(vectors)
        twins = np.array([*self._rows, -1], dtype=np.int64)[places]
        return Block(self, rows, vectors, twins, vectors @ vectors.T >= self._least)

    def add(self, row: int, vector: Vectors) -> None:
        """Keep one more row."""
        count = len(self._rows)
        if count == len(self._vectors):
            grown = np.empty((max(64, 2 * count), len(vector)), dtype=np.float32)
            grown[:count] = self._vectors[:count] if count else 0
            self._vectors = grown
        self._vectors[count] = vector
        self._rows.append(row)

    def _first_alike(self, vectors: Vectors) -> NDArray[np.int64]:
        """Place of the best kept row that each vector is alike to, -1 where there is none: shape (n,)."""
        first = np.full(len(vectors), -1, dtype=np.int64)
        for start in range(0, len(self._rows), CHUNK):
            open_ = np.flatnonzero(first < 0)
            kept = self._vectors[start : min(start + CHUNK, len(self._rows))]
            alike = vectors[open_] @ kept.T >= self._least
            hit = alike.any(axis=1)
            first[open_[hit]] = start + alike[hit].argmax(axis=1)
        return first


class Block:
    """A few rows on offer. Ask ``twin`` and call ``keep`` in the order of the rows."""

    def __init__(self, kept: KeptVectors, rows: Rows, vectors: Vectors, twins: Rows, alike: NDArray[np.bool_]) -> None:
        self._kept, self._rows, self._vectors = kept, rows, vectors
        self._twins, self._alike = twins, alike
        self._places = {row: place for place, row in enumerate(rows.tolist())}
        self._is_kept = np.zeros(len(rows), dtype=bool)

    def twin(self, row: int) -> int:
        """The best kept row that this row of the block is a near-duplicate of, or -1."""
        place = self._places[row]
        if self._twins[place] >= 0:
            return int(self._twins[place])
        inside = np.flatnonzero(self._alike[place] & self._is_kept)
        return int(self._rows[inside[0]]) if len(inside) else -1

    def keep(self, row: int) -> None:
        """Keep this row of the block."""
        place = self._places[row]
        self._is_kept[place] = True
        self._kept.add(row, self._vectors[place])


def _check(rows: Rows, vectors: Vectors) -> None:
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[0] != len(rows):
        raise SelectionError(f"the embedder gave an array of shape {shape} for {len(rows)} texts; one row per text")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        raise SelectionError(
            f"the embedder gave vectors of lengths {lengths.min():.3g} to {lengths.max():.3g}; "
            "near-duplicates need unit vectors: divide each by its length"
        )
