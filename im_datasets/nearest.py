"""Distance to the k-th nearest row, exact or approximate, over a matrix of vectors.

A fast float32 search only proposes neighbours. Its rounding is bounded, so it is known which rows can be the k-th
nearest; their distances are taken again in float64 from differences. So identical rows are exactly 0 apart, the
order of the rows does not matter, and an exact result is exact. Knows nothing of texts, models or datasets.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from im_datasets.batching import report
from im_datasets.errors import IndicatorError
from im_datasets.resources import is_forked

Metric = Literal["euclidean", "cosine"]
Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 4096
"""Rows looked up at a time; faiss works in blocks of that size too."""

MARGIN = 4
"""Neighbours asked for beyond the k-th, so that the k-th is rarely in doubt."""

PAIRS = 4096
"""Pairs whose differences are in memory at once: 12 MB at 384 dimensions."""

LISTS = 2.0
"""Lists of the approximate search, per square root of the rows."""

PROBES = 48
"""Lists that a row is compared with in the approximate search."""

JOINED = 65_536
"""Rows joined at a time in the approximate search: some 100 MB."""

TOO_LONG = 4e18
"""A vector of that length is left out: its squared distances would overflow float32."""


def knn_distances(vectors: Vectors, k: int, metric: Metric = "euclidean", exact_limit: int = 100_000) -> Floats:
    """Distance from each row to its k-th nearest *other* row.

    Rows are told apart by their index: with m identical copies of a row, each has m − 1 others at distance 0.
    Memory beside the vectors: n × 8 bytes for the result and some 100 MB of blocks; ``"cosine"`` and the
    approximate search hold one more copy of the vectors.

    Args:
        vectors: Shape (n, width), float32. A row that is not finite (or, for cosine, all zero) is nobody's
            neighbour and has no distance.
        k: Which neighbour, from 1.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 − cosine, 0 to 2.
        exact_limit: Above that many rows the neighbours are searched approximately: a distance then is that to
            the k-th nearest row *found*, never below the true one.

    Returns:
        Shape (n,), float64; NaN for rows that are not finite. The order of the rows does not matter.

    Raises:
        IndicatorError: Fewer than k + 1 rows with a finite vector, k below 1, or an unknown metric.

    Example:
        >>> knn_distances(np.array([[0, 0], [3, 4], [0, 1]], dtype=np.float32), k=1).tolist()
        [1.0, 4.242640687119285, 1.0]
    """
    _check(k, metric)
    space, usable = Space.of(vectors, metric)
    if len(space) <= k:
        raise IndicatorError(
            f"the distance to neighbour {k} needs {k + 1} scorable rows; {len(space)} of {len(vectors)} rows "
            f"are scorable; pass more rows or a smaller k"
        )
    exact = len(space) <= exact_limit
    squares = _exact(space, space, k, own=np.arange(len(space))) if exact else _approximate(space, k)
    return _scatter(space.distances(squares), usable)


def distances_to(queries: Vectors, rows: "Space", k: int) -> Floats:
    """Distance from each query to its k-th nearest row, always exact.

    Args:
        queries: Shape (m, width), float32.
        rows: The rows; all of them count, one equal to a query too.
        k: Which neighbour, from 1.

    Returns:
        Shape (m,), float64; NaN for queries that are not finite.

    Raises:
        IndicatorError: Fewer than k rows, or k below 1.
    """
    _check(k, rows.metric)
    if len(rows) < k:
        raise IndicatorError(f"the distance to neighbour {k} needs {k} rows; there are {len(rows)}")
    space, usable = Space.of(queries, rows.metric)
    squares = _exact(space, rows, k, own=np.full(len(space), -1))
    return _scatter(rows.distances(squares), usable)


@dataclass(frozen=True)
class Space:
    """Rows ready to be searched: ``vectors * scale[:, None]``.

    Attributes:
        metric: What a distance is.
        vectors: As they came, shape (n, width), float32.
        scale: What makes them unit vectors for cosine, else ones: shape (n,), float64.
        rounded: The scaled vectors in float32; the fast search sees these.
        norms: Lengths of the scaled vectors, shape (n,), float64.
    """

    metric: Metric
    vectors: Vectors
    scale: Floats
    rounded: Vectors
    norms: Floats

    @classmethod
    def of(cls, vectors: Vectors, metric: Metric) -> tuple[Self, NDArray[np.bool_]]:
        """The rows that have distances, and which rows of ``vectors`` these are, shape (n,).

        Args:
            vectors: Shape (n, width), float32. Left out are rows that are not finite or too long to square,
                and for cosine rows of zeros.
            metric: ``"euclidean"`` or ``"cosine"``.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        lengths = _lengths(vectors)
        usable = lengths < TOO_LONG
        if metric == "cosine":
            usable &= lengths > 0
        if not usable.all():
            vectors, lengths = vectors[usable], lengths[usable]
        if metric == "euclidean":
            return cls(metric, vectors, np.ones(len(vectors)), vectors, lengths), usable
        return cls(metric, vectors, 1 / lengths, _divided(vectors, lengths), np.ones(len(vectors))), usable

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: "slice | Ints") -> "Space":
        vectors = self.vectors[rows]
        rounded = vectors if self.rounded is self.vectors else self.rounded[rows]
        return Space(self.metric, vectors, self.scale[rows], rounded, self.norms[rows])

    def exact(self, rows: Ints) -> Floats:
        """Some of the scaled rows in float64."""
        scaled: Floats = self.vectors[rows].astype(np.float64) * self.scale[rows, None]
        return scaled

    def distances(self, squares: Floats) -> Floats:
        """Squared euclidean distances to distances; between unit vectors 1 − cosine is half the square."""
        return np.sqrt(squares) if self.metric == "euclidean" else squares / 2


def _check(k: int, metric: str) -> None:
    if k < 1:
        raise IndicatorError(f"k={k} is no neighbour; pass 1 or more")
    if metric not in get_args(Metric):
        raise IndicatorError(f"metric {metric!r} is unknown; known: {', '.join(get_args(Metric))}")


def _lengths(vectors: Vectors) -> Floats:
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        part = slice(start, start + BLOCK)
        lengths[part] = np.linalg.norm(vectors[part].astype(np.float64), axis=1)
    return lengths


def _divided(vectors: Vectors, lengths: Floats) -> Vectors:
    rounded = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        part = slice(start, start + BLOCK)
        rounded[part] = vectors[part] / lengths[part, None]
    return rounded


def _exact(queries: Space, rows: Space, k: int, own: Ints) -> Floats:
    """Squared distance from each query to its k-th nearest row other than ``own``: shape (len(queries),)."""
    squares = np.empty(len(queries))
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        squares[part] = _exact_block(queries[part], rows, k, own[part])
        report(min(start + BLOCK, len(queries)), len(queries))
    return squares


def _exact_block(queries: Space, rows: Space, k: int, own: Ints) -> Floats:
    """Ask for more and more neighbours of the queries whose k-th is still in doubt."""
    squares = np.empty(len(queries))
    open_ = np.arange(len(queries))
    count = k + 1 + MARGIN
    while len(open_):
        count = min(count, len(rows))
        near, ids = _search(queries.rounded[open_], rows.rounded, count)
        found = _Found(queries[open_], rows, near, ids, own[open_])
        kth, reach = found.kth(k)
        # No row beyond the neighbours asked for can be nearer than the k-th found, nor can any be below 0.
        certain = (near[:, -1] > reach) | (kth == 0) | (count == len(rows))
        squares[open_[certain]] = kth[certain]
        open_ = open_[~certain]
        count *= 4
    return squares


@dataclass(frozen=True)
class _Found:
    """Neighbours that the fast search proposes: for each query, rows and rounded squared distances.

    Attributes:
        queries: n queries.
        rows: The rows searched.
        near: Squared distances in float32, shape (n, count).
        ids: Their rows, shape (n, count).
        own: Each query's own row, which does not count; −1 where it is none of the rows: shape (n,).
    """

    queries: Space
    rows: Space
    near: Vectors
    ids: Ints
    own: Ints

    def kth(self, k: int) -> tuple[Floats, Floats]:
        """The k-th smallest exact squared distance, and up to which rounded one a row could be nearer.

        With every rounded value within ``error`` of the exact one, the exact k-th smallest is within ``error``
        of the rounded k-th smallest. So rows more than twice that below it surely are nearer, rows as much above
        surely farther, and only those between need their exact distance.
        """
        near = np.where(self.ids == self.own[:, None], np.inf, self.near).astype(np.float64)
        middle = np.partition(near, k - 1, axis=1)[:, k - 1]
        error = self._error()
        low, high = (middle - 2 * error)[:, None], (middle + 2 * error)[:, None]
        queries, places = np.nonzero((near >= low) & (near <= high) & (near < np.inf))
        exact = np.where(near < low, -np.inf, np.inf)
        exact[queries, places] = _pair_squares(self.queries, queries, self.rows, self.ids[queries, places])
        return np.partition(exact, k - 1, axis=1)[:, k - 1], high[:, 0]

    def _error(self) -> Floats:
        """Bound on the rounding of a squared distance in float32: shape (n,).

        A sum of w products is off by at most w·u/(1 − w·u) times the sum of their sizes (Higham, Accuracy and
        Stability of Numerical Algorithms, section 3.1), however it is ordered; |x|² + |y|² − 2xy has three.
        """
        terms = (self.rows.vectors.shape[1] + 8) * 2.0**-24
        sizes = (self.queries.norms + self.rows.norms.max()) ** 2
        error: Floats = terms / (1 - terms) * sizes + np.finfo(np.float32).tiny
        return error


def _approximate(space: Space, k: int) -> Floats:
    """Squared distance from each row to its k-th nearest other row found: shape (len(space),).

    An inverted file joined with itself: rows are put into lists around centres, and a row is compared with the
    lists of its ``PROBES`` nearest centres, all rows that ask for a list in one matrix product.
    """
    # Rows in the order of their bytes, so that the order they came in makes no difference.
    order = np.argsort(space.rounded.view(f"V{space.rounded[0].nbytes}").ravel(), kind="stable")
    space = space[order]
    centres = _centres(space.rounded)
    lists = _lists(space.rounded, centres)
    squares = np.empty(len(space))
    for start in range(0, len(space), JOINED):
        rows = np.arange(start, min(start + JOINED, len(space)))
        squares[order[rows]] = _approximate_block(space, rows, centres, lists, k)
        report(int(rows[-1]) + 1, len(space))
    return squares


def _approximate_block(space: Space, rows: Ints, centres: Vectors, lists: list[Ints], k: int) -> Floats:
    near, ids = _join(space.rounded, rows, centres, lists, k + 1 + MARGIN)
    squares = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        squares[part] = _Found(space[rows[part]], space, near[part], ids[part], rows[part]).kth(k)[0]
    few = rows[~np.isfinite(squares)]
    squares[few - rows[0]] = _exact(space[few], space, k, own=few)
    return squares


def _centres(points: Vectors) -> Vectors:
    """Centres that the rows lie around, shape (lists, width)."""
    import faiss

    count = max(1, round(LISTS * len(points) ** 0.5))
    means = faiss.Kmeans(
        points.shape[1], count, niter=8, seed=1, min_points_per_centroid=1, max_points_per_centroid=64
    )
    _settle_threads()
    means.train(points)
    centres: Vectors = means.centroids
    return centres


def _lists(points: Vectors, centres: Vectors) -> list[Ints]:
    """The rows nearest to each centre."""
    nearest = np.empty(len(points), dtype=np.int64)
    for start in range(0, len(points), JOINED):
        nearest[start : start + JOINED] = _search(points[start : start + JOINED], centres, 1)[1][:, 0]
    return _grouped(nearest, len(centres))


def _join(points: Vectors, rows: Ints, centres: Vectors, lists: list[Ints], count: int) -> tuple[Vectors, Ints]:
    """The ``count`` nearest of the rows that each row is compared with: squares and ids, −1 where too few."""
    near = np.full((len(rows), count), np.inf, dtype=np.float32)
    ids = np.full((len(rows), count), -1)
    probes = min(PROBES, len(centres))
    asked = _search(points[rows], centres, probes)[1]
    for members, places in zip(lists, _grouped(asked.ravel(), len(centres)), strict=True):
        if len(members) and len(places):
            asking = places // probes
            found, at = _search(points[rows[asking]], points[members], min(count, len(members)))
            near[asking], ids[asking] = _nearer(near[asking], ids[asking], found, members[at])
    return near, ids


def _nearer(near: Vectors, ids: Ints, other_near: Vectors, other_ids: Ints) -> tuple[Vectors, Ints]:
    """Of two sets of neighbours per row the nearest, as many as in the first."""
    both, both_ids = np.concatenate([near, other_near], axis=1), np.concatenate([ids, other_ids], axis=1)
    best = np.argpartition(both, near.shape[1] - 1, axis=1)[:, : near.shape[1]]
    return np.take_along_axis(both, best, axis=1), np.take_along_axis(both_ids, best, axis=1)


def _grouped(groups: Ints, count: int) -> list[Ints]:
    """Places of each value 0 … count − 1."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.searchsorted(groups[order], np.arange(1, count)))


def _pair_squares(queries: Space, query: Ints, rows: Space, row: Ints) -> Floats:
    """Squared distances of pairs, in float64 from differences: shape (len(query),)."""
    squares = np.empty(len(query))
    for start in range(0, len(query), PAIRS):
        part = slice(start, start + PAIRS)
        difference = queries.exact(query[part]) - rows.exact(row[part])
        squares[part] = np.einsum("ij,ij->i", difference, difference)
    return squares


def _search(queries: Vectors, rows: Vectors, count: int) -> tuple[Vectors, Ints]:
    """The ``count`` nearest rows of each query, nearest first, with squared distances rounded to float32."""
    import faiss

    _settle_threads()
    near, ids = faiss.knn(queries, rows, count)
    return near, ids


def _settle_threads() -> None:
    """One thread in a forked process: faiss would wait for threads that are not there."""
    if is_forked():
        import faiss

        faiss.omp_set_num_threads(1)


def _scatter(distances: Floats, usable: NDArray[np.bool_]) -> Floats:
    column = np.full(len(usable), np.nan)
    column[usable] = distances
    return column
