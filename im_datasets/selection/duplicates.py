"""Near-duplicate pruning over embeddings: of two rows that say nearly the same, the better one stays.

Greedy, in the order the rows are offered: a row is a near-duplicate of a row *kept* before it, never of one
that was dropped. Blocked, so that nearly all the work is matrix products, and exact: the outcome is that of
comparing the rows one by one. Where many rows are kept, a bound on the cosine from a few dimensions says first which
of them can be alike at all. That makes each comparison cheap, not fewer: every offered row meets every kept one, so
that the work grows with their product: a million rows, all of them kept, are 5 × 10¹¹ pairs of 33 multiplications each.
Knows nothing of texts, models or datasets.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import SelectionError
from im_datasets.data.arrow import RowNumbers

TOLERANCE = 1e-6
"""Cosines of float32 unit vectors carry rounding of this order; without it identical rows could miss 1.0."""

CHUNK = 8192
"""Kept rows compared with a block at a time: bounds memory to block x CHUNK floats."""

FILTER_FROM = 8192
"""Kept rows from which on the bound is looked at first."""

DIRECTIONS = 32
"""Dimensions that the bound is taken from."""

SLACK = 1e-4
"""What rounding in float32 may take off the bound at most; a hundred times what it does."""

DENSE = 1 / 50
"""Share of pairs within the bound above which it is cheaper to compare all."""

PAIRS = 4096
"""Pairs compared one by one that are in memory at once."""

Vectors = NDArray[np.float32]


class TextEmbedder(Protocol):
    """What turns texts into vectors; ``im_datasets.models.embedder.Embedder`` is one."""

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
        self._rows = _GrowingArray(np.int64)
        self._vectors = _GrowingArray(np.float32)
        self._bound: Bound | None = None
        self._outlines = _GrowingArray(np.float32)

    def compare(self, rows: RowNumbers, vectors: Vectors) -> "Block":
        """Compare a block of rows with the rows kept so far and with each other.

        Args:
            rows: Row numbers, best first, shape (n,).
            vectors: Unit vectors of these rows, shape (n, width).

        Raises:
            SelectionError: Not one finite unit vector per row.
        """
        _check(rows, vectors)
        places = self._first_alike(vectors)
        twins = np.full(len(rows), -1, dtype=np.int64)
        twins[places >= 0] = self._rows.held[places[places >= 0]]
        return Block(self, rows, vectors, twins, vectors @ vectors.T >= self._least)

    def add(self, row: int, vector: Vectors) -> None:
        """Keep one more row."""
        self._rows.append(np.array([row]))
        self._vectors.append(vector[None])

    def _first_alike(self, vectors: Vectors) -> NDArray[np.int64]:
        """Place of the best kept row that each vector is alike to, -1 where there is none: shape (n,)."""
        self._outline()
        outlines = None if self._bound is None else self._bound.outlines(vectors)
        first = np.full(len(vectors), -1, dtype=np.int64)
        for start in range(0, len(self._rows), CHUNK):
            unmatched = np.flatnonzero(first < 0)
            part = slice(start, start + CHUNK)
            if outlines is None:
                alike = vectors[unmatched] @ self._vectors.held[part].T >= self._least
            else:
                alike = self._alike_within_bound(vectors[unmatched], outlines[unmatched], part)
            # Kept rows are best first, so that the first one alike is the best one.
            hit = alike.any(axis=1)
            first[unmatched[hit]] = start + alike[hit].argmax(axis=1)
        return first

    def _outline(self) -> None:
        """Outline the rows kept since the last time, once they are many."""
        count, done = len(self._rows), len(self._outlines)
        if count < FILTER_FROM or count == done:
            return
        if self._bound is None:
            # Of the first rows alone: any directions bound a cosine, those of later rows hardly more tightly.
            self._bound = Bound.of(self._vectors.held[:FILTER_FROM])
        for start in range(done, count, CHUNK):
            self._outlines.append(self._bound.outlines(self._vectors.held[start : start + CHUNK]))

    def _alike_within_bound(self, vectors: Vectors, outlines: Vectors, part: slice) -> NDArray[np.bool_]:
        """Which of some kept rows each vector is alike to, comparing only those that the bound leaves."""
        alike: NDArray[np.bool_] = outlines @ self._outlines.held[part].T >= self._least - SLACK
        row, place = np.nonzero(alike)
        kept = self._vectors.held[part]
        if len(row) > DENSE * alike.size:
            dense: NDArray[np.bool_] = vectors @ kept.T >= self._least
            return dense
        for start in range(0, len(row), PAIRS):
            rows, places = row[start : start + PAIRS], place[start : start + PAIRS]
            cosines = np.einsum("ij,ij->i", vectors[rows], kept[places], dtype=np.float64)
            alike[rows, places] = cosines >= self._least
        return alike


class _GrowingArray:
    """An array that rows are added to, one by one or some at a time, without being copied for each."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._room: NDArray[Any] = np.empty(0, dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def held(self) -> NDArray[Any]:
        """What was added so far."""
        return self._room[: self._count]

    def append(self, rows: NDArray[Any]) -> None:
        """Add some rows, all of one shape."""
        stop = self._count + len(rows)
        if stop > len(self._room):
            # Twice as much each time: all copies together cost no more than the rows themselves.
            room = np.empty((max(64, 2 * stop), *rows.shape[1:]), dtype=self._room.dtype)
            if self._count:
                room[: self._count] = self.held
            self._room = room
        self._room[self._count : stop] = rows
        self._count = stop


class Bound(NamedTuple):
    """Directions in which a sample of vectors spreads most: an upper bound of any two vectors' cosine.

    What two vectors x and y have in common is what their parts along the directions have in common, and at most the
    product of what is left of their lengths: x·y ≤ Px·Py + |x − Px| |y − Py|.

    Attributes:
        directions: Orthonormal, shape (width, count), float32.
    """

    directions: Vectors

    @classmethod
    def of(cls, vectors: Vectors) -> Self:
        """The bound that parts these vectors best."""
        points = vectors.astype(np.float64)
        _, directions = np.linalg.eigh(points.T @ points)
        # In the order of their spread, the widest last.
        return cls(np.ascontiguousarray(directions[:, -DIRECTIONS:], dtype=np.float32))

    def outlines(self, vectors: Vectors) -> Vectors:
        """Short vectors whose products are the bounds: shape (n, count + 1), float32."""
        short = vectors @ self.directions
        rest = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", short, short)
        return np.column_stack([short, np.sqrt(np.maximum(rest, 0))]).astype(np.float32)


class Block:
    """A few rows on offer. Ask ``twin`` and call ``keep`` in the order of the rows."""

    def __init__(
        self, kept: KeptVectors, rows: RowNumbers, vectors: Vectors, twins: RowNumbers, alike: NDArray[np.bool_]
    ) -> None:
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


def _check(rows: RowNumbers, vectors: Vectors) -> None:
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[0] != len(rows):
        raise SelectionError(f"the embedder gave an array of shape {shape} for {len(rows)} texts; one row per text")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        raise SelectionError(
            f"the embedder gave vectors of lengths {lengths.min():.3g} to {lengths.max():.3g}; "
            "near-duplicates need unit vectors: divide each by its length"
        )
