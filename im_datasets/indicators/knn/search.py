"""Distance to the k-th nearest row, exact or approximate, over a matrix of vectors.

A fast float32 search only proposes neighbours. Its rounding is bounded, so it is known which rows can be the k-th
nearest; their distances are taken again in float64 from differences. So identical rows are exactly 0 apart, the
order of the rows does not matter, and an exact result is exact. Beyond a number of rows the neighbours come from an
approximate graph instead, and how many of them are right is measured. Knows nothing of texts, models or datasets.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import IndicatorError, OutputError
from im_datasets.indicators.knn.approximate import SEED, check_installed, descents, threads
from im_datasets.indicators.knn.vectors import BLOCK, Matrix, Source, Vectors, knn_folder, matrix_in_cache
from im_datasets.models.devices import is_forked
from im_datasets.models.meter import report

Metric = Literal["euclidean", "cosine"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MARGIN = 4
"""Neighbours asked for beyond the k-th, so that the k-th is rarely in doubt."""

PAIRS = 4096
"""Pairs whose differences are in memory at once: 12 MB at 384 dimensions."""

SCAN = 32_768
"""Rows that some queries are compared with at a time where all rows are gone through."""

SAMPLE = 1000
"""Rows whose neighbours are searched exactly too, to measure what share of them the approximate search finds."""

TOO_LONG = 4e18
"""A vector of that length is left out: its squared distances would overflow float32."""

RECALL = 0.99
MEMORY = 4 * 2**30


class Neighbours(NamedTuple):
    """Distances, and how they were searched.

    Attributes:
        distances: To the k-th nearest other row, shape (n,), float64; NaN for rows without a distance.
        search: Plain data for a record: ``method``; for an approximate one also ``recall``, the share of the k
            nearest rows that was found, over ``sample`` rows, and the parameters.
    """

    distances: Floats
    search: dict[str, Any]


def search_neighbours(
    vectors: Source,
    k: int,
    metric: Metric = "euclidean",
    *,
    exact_limit: int = 100_000,
    recall: float = RECALL,
    memory: int = MEMORY,
) -> Neighbours:
    """Distance from each row to its k-th nearest *other* row.

    Rows are told apart by their index: with m identical copies of a row, each has m − 1 others at distance 0.
    An exact search holds the vectors in float32 (``"cosine"`` one more copy of them) and some 100 MB of blocks. An
    approximate one reads them a block at a time, puts the distinct ones into a nameless file of the cache folder
    (rows × width × 4 bytes, twice for ``"cosine"``), and takes at most ``memory`` for its graph beside some 100 bytes
    a row.

    Args:
        vectors: n rows of one width, float16 or float32: a matrix, a mapped one, or parts of one as matrices or
            ``.npy`` files. A row that is not finite (or, for cosine, all zero) is nobody's neighbour and has no
            distance.
        k: Which neighbour, from 1.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 − cosine, 0 to 2.
        exact_limit: As for ``KNNDistance``: above it a distance is that to the k-th nearest row *found*, never below
            the true one.
        recall: As for ``KNNDistance``.
        memory: As ``memory_gib`` of ``KNNDistance``, in bytes.

    Returns:
        The distances, and how they were searched. The order of the rows does not matter.

    Raises:
        IndicatorError: Fewer than k + 1 rows with a finite vector, k below 1, an unknown metric, a recall out of
            range, or vectors that cannot be read.
        OutputError: The cache folder has no room for the vectors.
        MissingExtraError: An approximate search is needed, and pynndescent is not installed.

    Example:
        >>> result = search_neighbours(np.array([[0, 0], [3, 4], [0, 1]], dtype=np.float32), k=1)
        >>> result.distances.tolist(), result.search
        ([1.0, 4.242640687119285, 1.0], {'method': 'exact'})
    """
    _check(k, metric)
    if not 0 < recall <= 1:
        raise IndicatorError(f"recall={recall!r}; it must be above 0 and at most 1")
    matrix = Matrix.of(vectors)
    if len(matrix) > exact_limit:
        # Rows without a distance may leave few enough for an exact search.
        survey = _Survey.of(matrix, metric)
        _check_rows(int(survey.usable.sum()), len(matrix), k)
        if survey.usable.sum() > exact_limit:
            squares, search = _approximate(matrix, survey, metric, k, exact_limit, recall, memory)
            return Neighbours(_scatter(_distances(metric, squares), survey.usable), search)
    space, usable = Space.of(matrix.whole(), metric)
    _check_rows(len(space), len(matrix), k)
    squares = _exact(space, space, k, own=np.arange(len(space)))
    return Neighbours(_scatter(_distances(metric, squares), usable), {"method": "exact"})


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
    return _scatter(_distances(rows.metric, squares), usable)


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
        lengths = np.empty(len(vectors))
        for part in _blocks(len(vectors)):
            lengths[part] = np.linalg.norm(vectors[part].astype(np.float64), axis=1)
        usable = lengths < TOO_LONG
        if metric == "cosine":
            usable &= lengths > 0
        if not usable.all():
            vectors, lengths = vectors[usable], lengths[usable]
        if metric == "euclidean":
            return cls(metric, vectors, np.ones(len(vectors)), vectors, lengths), usable
        rounded = np.empty_like(vectors)
        for part in _blocks(len(vectors)):
            rounded[part] = vectors[part] / lengths[part, None]
        return cls(metric, vectors, 1 / lengths, rounded, np.ones(len(vectors))), usable

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


def _check(k: int, metric: str) -> None:
    if k < 1:
        raise IndicatorError(f"k={k} is no neighbour; pass 1 or more")
    if metric not in get_args(Metric):
        raise IndicatorError(f"metric {metric!r} is unknown; known: {', '.join(get_args(Metric))}")


def _check_rows(scorable: int, rows: int, k: int) -> None:
    if scorable <= k:
        raise IndicatorError(
            f"the distance to neighbour {k} needs {k + 1} scorable rows; {scorable} of {rows} rows "
            f"are scorable; pass more rows or a smaller k"
        )


def _distances(metric: Metric, squares: Floats) -> Floats:
    """Squared euclidean distances to distances; between unit vectors 1 − cosine is half the square."""
    return np.sqrt(squares) if metric == "euclidean" else squares / 2


def _blocks(rows: int) -> Iterator[slice]:
    """Slices of ``BLOCK`` rows: what is computed in float64 is in memory for one of them at a time."""
    return (slice(start, start + BLOCK) for start in range(0, rows, BLOCK))


def _exact(queries: Space, rows: Space, k: int, own: Ints) -> Floats:
    """Squared distance from each query to its k-th nearest row other than ``own``: shape (len(queries),)."""
    squares = np.empty(len(queries))
    for part in _blocks(len(queries)):
        squares[part] = _exact_block(queries[part], rows, k, own[part])
        report(min(part.stop, len(queries)), len(queries))
    return squares


def _exact_block(queries: Space, rows: Space, k: int, own: Ints) -> Floats:
    """Ask for more and more neighbours of the queries whose k-th is still in doubt."""
    squares = np.empty(len(queries))
    open_ = np.arange(len(queries))
    count = k + 1 + MARGIN
    while len(open_):
        count = min(count, len(rows))
        near, ids = _search(queries.rounded[open_], rows.rounded, count)
        kth, reach = _Proposed(queries[open_], rows, near, ids, own[open_]).kth(k)
        # No row beyond the neighbours asked for can be nearer than the k-th found, nor can any be below 0.
        certain = (near[:, -1] > reach) | (kth == 0) | (count == len(rows))
        squares[open_[certain]] = kth[certain]
        open_ = open_[~certain]
        count *= 4
    return squares


@dataclass(frozen=True)
class _Proposed:
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


@dataclass(frozen=True)
class _Survey:
    """What one reading of all rows tells.

    Attributes:
        usable: Which rows have distances, shape (n,).
        first: One row of each kind of equal ones, in the order of their digests, so that the order they came in
            makes no difference: shape (m,).
        group: The kind of each usable row, shape (usable rows,).
        copies: Rows of each kind, shape (m,).
    """

    usable: NDArray[np.bool_]
    first: Ints
    group: Ints
    copies: Ints

    @classmethod
    def of(cls, matrix: Matrix, metric: Metric) -> Self:
        usable = np.zeros(len(matrix), dtype=np.bool_)
        digests = np.empty(len(matrix), dtype="V16")
        for start, block in matrix.blocks():
            space, finite = Space.of(block, metric)
            usable[start : start + len(block)] = finite
            # Digests find equal rows without holding or sorting the vectors.
            own = [blake2b(row, digest_size=16).digest() for row in space.rounded]
            digests[start + np.flatnonzero(finite)] = np.array(own, dtype="V16")
        # As two integers: numpy sorts those several times as fast as bytes.
        halves = digests[usable].view(np.uint64).reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        group = np.empty(len(order), dtype=np.int64)
        group[order] = np.cumsum(new) - 1
        return cls(usable, np.flatnonzero(usable)[order[new]], group, np.bincount(group))


def _approximate(
    matrix: Matrix, survey: _Survey, metric: Metric, k: int, exact_limit: int, recall: float, memory: int
) -> tuple[Floats, dict[str, Any]]:
    """Squared distance from each usable row to its k-th nearest other row found, and how they were searched."""
    space = _space_in_files(matrix, survey.first, metric)
    count = min(k + 1 + MARGIN, len(space))
    graph: NDArray[Any]
    if len(space) <= max(exact_limit, 4 * descents(len(space), count, memory)[0].neighbours):
        graph, search = _scan(space, np.arange(len(space)), count), {"method": "scan of distinct rows"}
    else:
        graph, search = _descend(space, k, count, recall, memory)
    squares = _kth_of_graph(space, graph, survey.copies, k)
    return squares[survey.group], {**search, "distinct_rows": len(survey.first)}


def check_room() -> None:
    """Find out early whether an approximate search can run and write its vectors.

    Raises:
        MissingExtraError: pynndescent is not installed.
        OutputError: The cache folder cannot be written.
    """
    check_installed()
    try:
        matrix_in_cache((1, 1))
    except OutputError as error:
        raise OutputError(
            f"cannot write to {knn_folder()} ({error.__cause__}), where the search for neighbours among so many rows "
            "puts their vectors; set IM_DATASETS_CACHE to a folder with room for them"
        ) from error


def _space_in_files(matrix: Matrix, rows: Ints, metric: Metric) -> Space:
    """Some rows, all of which have distances, as a space; read in their order, written to their places in ``rows``."""
    shape, matrices = (len(rows), matrix.width), 1 if metric == "euclidean" else 2
    vectors = matrix_in_cache(shape, matrices)
    rounded = vectors if metric == "euclidean" else matrix_in_cache(shape, matrices)
    scale, norms = np.ones(len(rows)), np.ones(len(rows))
    place = np.full(len(matrix), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    for start, block in matrix.blocks():
        to = place[start : start + len(block)]
        part, _ = Space.of(block[to >= 0], metric)
        to = to[to >= 0]
        vectors[to], scale[to], norms[to] = part.vectors, part.scale, part.norms
        if metric == "cosine":
            rounded[to] = part.rounded
    return Space(metric, vectors, scale, rounded, norms)


def _descend(space: Space, k: int, count: int, recall: float, memory: int) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Near rows of each row, shape (n, count), from the first descent that finds enough of a sample's neighbours."""
    check_installed()
    tries = descents(len(space), count, memory)
    if (needed := tries[0].bytes_per_point() * len(space)) > memory:
        warnings.warn(
            f"the approximate search takes {needed / 2**30:.2g} GiB for the graph of {len(space)} rows at least, more "
            f"than the {memory / 2**30:.2g} GiB allowed (memory_gib); score fewer rows where there is no room for it",
            stacklevel=2,
        )
    sample = np.sort(np.random.default_rng(SEED).choice(len(space), min(SAMPLE, len(space)), replace=False))
    nearest = _scan(space, sample, k + 1)
    for descent in tries:
        # Cut at once: what is not wide enough is not held beside the next descent.
        graph = np.ascontiguousarray(descent.run(space.rounded)[:, :count])
        share = _recall(graph[sample], nearest, sample)
        search = {
            "method": "nn-descent",
            "recall": round(share, 5),
            "recall_asked": recall,
            "sample": len(sample),
            "seed": SEED,
            "neighbours": descent.neighbours,
            "candidates": descent.candidates,
            "threads": threads(),
            "graph_bytes": descent.bytes_per_point() * len(space),
        }
        if share >= recall:
            break
    else:
        widest = descents(len(space), count, sys.maxsize)[-1]
        advice = "allow it more memory (memory_gib), or " if tries[-1].neighbours < widest.neighbours else ""
        warnings.warn(
            f"the approximate search found {share:.1%} of the {k} nearest rows, fewer than the {recall:.1%} asked for; "
            f"{advice}raise exact_limit above {len(space)}",
            stacklevel=2,
        )
    return graph, search


def _recall(graph: NDArray[np.int32], nearest: Ints, rows: Ints) -> float:
    """Share of some rows' nearest others that their neighbours in the graph hold."""
    others = nearest != rows[:, None]
    # Where a row's own place is taken by others at the same distance, one too many is known.
    others &= others.cumsum(axis=1) < nearest.shape[1]
    held = (graph[:, None, :] == nearest[:, :, None]).any(axis=2)
    return float(held[others].mean())


def _scan(space: Space, rows: Ints, count: int) -> Ints:
    """The ``count`` rows nearest to some rows, nearest first, themselves among them, by comparing with all of them.

    In float32, so that of rows equally far, but for rounding, either may come first.
    """
    nearest = np.empty((len(rows), count), dtype=np.int64)
    for part in _blocks(len(rows)):
        queries = space.rounded[rows[part]]
        near, ids = np.full((len(queries), count), np.inf, dtype=np.float32), np.full((len(queries), count), -1)
        for first in range(0, len(space), SCAN):
            scanned = space.rounded[first : first + SCAN]
            squares, places = _search(queries, scanned, min(count, len(scanned)))
            near, ids = np.concatenate([near, squares], axis=1), np.concatenate([ids, places + first], axis=1)
            order = np.argsort(near, axis=1, kind="stable")[:, :count]
            near, ids = np.take_along_axis(near, order, 1), np.take_along_axis(ids, order, 1)
        nearest[part] = ids
    return nearest


def _kth_of_graph(space: Space, graph: NDArray[Any], copies: Ints, k: int) -> Floats:
    """Squared distance from each kind of row to its k-th nearest other row in the graph: shape (len(space),)."""
    squares = np.empty(len(space))
    for part in _blocks(len(space)):
        kinds = np.arange(part.start, min(part.stop, len(space)))
        squares[kinds] = _walk(space, graph[kinds].astype(np.int64), copies, kinds, k)
        report(int(kinds[-1]) + 1, len(space))
    # Where the graph holds too few neighbours to reach the k-th, all rows are gone through.
    few = np.flatnonzero(np.isinf(squares))
    if len(few):
        near = _scan(space, few, min(k + 1 + MARGIN, len(space)))
        squares[few] = _walk(space, near, copies, few, k)
    return squares


def _walk(space: Space, neighbours: Ints, copies: Ints, kinds: Ints, k: int) -> Floats:
    """Squared distance to the k-th nearest row among neighbours, infinite where they are fewer: shape (len(kinds),)."""
    query, place = np.nonzero((neighbours >= 0) & (neighbours != kinds[:, None]))
    kind = neighbours[query, place]
    near = np.full((len(kinds), neighbours.shape[1] + 1), np.inf)
    near[query, place] = _pair_squares(space, kinds[query], space, kind)
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
        # OpenMP threads of the parent do not live on in a fork; faiss would wait for them for ever.
        faiss.omp_set_num_threads(1)
    near, ids = faiss.knn(queries, rows, count)
    return near, ids


def _scatter(distances: Floats, usable: NDArray[np.bool_]) -> Floats:
    column = np.full(len(usable), np.nan)
    column[usable] = distances
    return column
