"""Distance to the k-th nearest row, exact or approximate, over a matrix of vectors.

A fast float32 search only proposes neighbours. Its rounding is bounded, so it is known which rows can be the k-th
nearest; their distances are taken again in float64 from differences. So identical rows are exactly 0 apart, the
order of the rows does not matter, and an exact result is exact. Knows nothing of texts, models or datasets.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

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

LINKS = 32
"""Links per row of the approximate search's graph; 256 bytes of memory."""

WIDTH = 128
"""Rows the approximate search keeps in view while it walks the graph (HNSW's efSearch)."""

TOO_LONG = 4e18
"""A vector of that length is left out: its squared distances would overflow float32."""


def knn_distances(vectors: Vectors, k: int, metric: Metric = "euclidean", exact_limit: int = 100_000) -> Floats:
    """Distance from each row to its k-th nearest *other* row.

    Rows are told apart by their index: with m identical copies of a row, each has m − 1 others at distance 0.
    Memory beside the vectors: n × 8 bytes for the result and some 100 MB of blocks; ``"cosine"`` and the
    approximate search hold one more copy of the vectors each.

    Args:
        vectors: Shape (n, width), float32. A row that is not finite (or, for cosine, all zero) is nobody's
            neighbour and has no distance.
        k: Which neighbour, from 1.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 − cosine, 0 to 2.
        exact_limit: Above that many rows the neighbours are searched approximately: a distance then is that to
            the k-th nearest row *found*, never below the true one (recall: tests/benchmarks/bench_knn.py).

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
        queries, places = np.nonzero((near >= low) & (near <= high))
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

    A graph of near rows (HNSW; Malkov and Yashunin 2016) over the distinct rows, walked from every row.
    """
    first, group, copies = _distinct(space.rounded)
    graph = _graph(space.rounded, first)
    squares = np.empty(len(first))
    for start in range(0, len(first), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(first)))
        squares[rows] = _walk(graph, space, first, copies, rows, k)
        report(int(rows[-1]) + 1, len(first))
    few = first[np.isinf(squares)]
    squares[np.isinf(squares)] = _exact(space[few], space, k, own=few)
    return squares[group]


def _distinct(points: Vectors) -> tuple[Ints, Ints, Ints]:
    """Distinct rows in the order of their bytes, so that the order they came in makes no difference.

    Returns:
        One row of each kind, shape (m,); each row's kind, shape (n,); rows of each kind, shape (m,).
    """
    bytes_ = points.view(f"V{points[0].nbytes}").ravel()
    order = np.argsort(bytes_, kind="stable")
    new = np.ones(len(order), dtype=np.bool_)
    for start in range(1, len(order), BLOCK):
        part = order[start - 1 : start + BLOCK]
        new[start : start + BLOCK] = bytes_[part[1:]] != bytes_[part[:-1]]
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    return order[new], group, np.bincount(group)


def _graph(points: Vectors, rows: Ints) -> Any:
    """The graph over some rows, built by one thread: several would build another one each time."""
    import faiss

    graph = faiss.IndexHNSWFlat(points.shape[1], LINKS)
    graph.hnsw.efSearch = WIDTH
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    for start in range(0, len(rows), BLOCK):
        graph.add(points[rows[start : start + BLOCK]])
    faiss.omp_set_num_threads(1 if is_forked() else threads)
    return graph


def _walk(graph: Any, space: Space, first: Ints, copies: Ints, kinds: Ints, k: int) -> Floats:
    """Squared distance to the k-th nearest row found, infinite where fewer were: shape (len(kinds),)."""
    _, found = graph.search(space.rounded[first[kinds]], k + 1 + MARGIN)
    query, place = np.nonzero((found >= 0) & (found != kinds[:, None]))
    kind = found[query, place]
    near = np.full((len(kinds), found.shape[1] + 1), np.inf)
    near[query, place] = _pair_squares(space, first[kinds[query]], space, first[kind])
    rows = np.zeros(near.shape, dtype=np.int64)
    rows[query, place] = copies[kind]
    # The last place is for the other copies of the row itself.
    near[:, -1], rows[:, -1] = np.where(copies[kinds] > 1, 0, np.inf), copies[kinds] - 1
    order = np.argsort(near, axis=1, kind="stable")
    near, reached = np.take_along_axis(near, order, 1), np.take_along_axis(rows, order, 1).cumsum(axis=1) >= k
    kth: Floats = near[np.arange(len(near)), reached.argmax(axis=1)]
    return np.where(reached.any(axis=1), kth, np.inf)


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

    if is_forked():
        faiss.omp_set_num_threads(1)
    near, ids = faiss.knn(queries, rows, count)
    return near, ids


def _scatter(distances: Floats, usable: NDArray[np.bool_]) -> Floats:
    column = np.full(len(usable), np.nan)
    column[usable] = distances
    return column
