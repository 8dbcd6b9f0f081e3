"""The order of rows by target examples: each target in turn takes the nearest row that none has taken.

The first round gives every target its nearest row, the second its next one, and so on, ties by row, so that a job of
many sides is covered on all of them. Source: Ivison et al. (2025), arXiv 2503.01807; in their code a target whose next
row was taken before loses that turn, here it takes the one after.

Of the matrix of rows × targets only so much is held as the turns come to: for each target a list of its nearest rows,
found in one pass over the rows. Where a list runs out the pass is made again for longer ones; what comes out is the
same for lists of any length.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from im_datasets.data.arrow import RowNumbers

LIST_BYTES = 2**29
"""What the lists of all targets may take to begin with; a matrix of ten million rows and 500 targets would be 20 GB."""

SHORTEST = 1024
"""Rows on a list at least."""

ENTRY_BYTES = 12
"""Of an entry on a list: a row's number and its cosine."""

Cosines = NDArray[np.float32]
Pass = Callable[[], Iterator[Cosines]]
"""Starts a pass over the rows: some at a time, in order, their cosines to the targets, shape (some, targets); NaN for a
row that has none."""


class TargetOrder:
    """Rows in the order in which targets take them.

    Args:
        rows: Their numbers, ascending, shape (n,).
        targets: How many targets there are.
        cosines: Starts a pass over these rows.
        size: How many rows are likely to be asked for; it changes no order.

    Example:
        >>> cosines = np.array([[0.9, 0.1], [0.8, 0.7], [0.1, 0.6]], dtype=np.float32)
        >>> order = TargetOrder(np.array([5, 6, 7]), 2, lambda: iter([cosines]), size=2)
        >>> list(order), order.targets_of(np.array([5, 6, 7])).tolist()
        ([5, 6, 7], [0, 1, 0])
    """

    def __init__(self, rows: RowNumbers, targets: int, cosines: Pass, size: int) -> None:
        self._rows, self._cosines = rows, cosines
        self._nearest = np.full(len(rows), np.nan, dtype=np.float32)
        self._target = np.full(len(rows), -1, dtype=np.int32)
        room = LIST_BYTES // (ENTRY_BYTES * targets)
        self._lists = self._find_lists(targets, max(SHORTEST, min(size, room)))

    def __iter__(self) -> Iterator[int]:
        """Row numbers: those that a target takes, then those without cosines, by row."""
        taken, next_places = bytearray(len(self._rows)), [0] * len(self._lists)
        while True:
            for target in range(len(self._lists)):
                place = self._next(target, next_places, taken)
                if place is None:
                    yield from self._rows[np.isnan(self._nearest)].tolist()
                    return
                taken[place], self._target[place] = True, target
                yield int(self._rows[place])

    def targets_of(self, rows: RowNumbers) -> NDArray[np.int32]:
        """The target, counted from 0, in whose turn each of some rows was taken; -1 for none."""
        return self._target[np.searchsorted(self._rows, rows)]

    def others(self, rows: RowNumbers) -> RowNumbers:
        """All rows but these, nearest to any target first, ties by row, those without cosines last."""
        is_other = np.ones(len(self._rows), dtype=bool)
        is_other[np.searchsorted(self._rows, rows)] = False
        places = np.flatnonzero(is_other)
        # NaN sorts last.
        return self._rows[places[np.argsort(-self._nearest[places], kind="stable")]]

    def _next(self, target: int, next_places: list[int], taken: bytearray) -> int | None:
        """Place of the nearest row that is not taken; None where all are."""
        while True:
            nearest = self._lists[target]
            for step in range(next_places[target], len(nearest)):
                if not taken[nearest[step]]:
                    next_places[target] = step + 1
                    return int(nearest[step])
            next_places[target] = len(nearest)
            if len(nearest) == np.count_nonzero(~np.isnan(self._nearest)):
                return None
            # Longer lists begin as the shorter ones did.
            self._lists = self._find_lists(len(self._lists), 4 * len(nearest))

    def _find_lists(self, targets: int, length: int) -> list[RowNumbers]:
        """The nearest rows of each target by their places, so many of them, nearest first; in one pass."""
        lists = [_List(length) for _ in range(targets)]
        waiting: list[Cosines] = []
        start = end = 0
        for block in self._cosines():
            self._nearest[end : end + len(block)] = block.max(axis=1)
            waiting.append(block)
            end += len(block)
            # As many as are on a list already: what is gone through again is no more than what is new.
            if end - start >= length:
                _add(lists, start, waiting)
                waiting, start = [], end
        _add(lists, start, waiting)
        return [each.nearest_first() for each in lists]


class _List:
    """The rows with the largest cosines to one target, in the order of the rows."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._places = np.empty(0, dtype=np.int64)
        self._cosines = np.empty(0, dtype=np.float32)

    def add(self, places: RowNumbers, cosines: Cosines) -> None:
        """Offer rows that come after all that were offered."""
        places, cosines = np.concatenate([self._places, places]), np.concatenate([self._cosines, cosines])
        if len(places) > self._length:
            least = np.partition(cosines, -self._length)[-self._length]
            chosen = cosines > least
            # Of equal ones the first.
            chosen[np.flatnonzero(cosines == least)[: self._length - np.count_nonzero(chosen)]] = True
            places, cosines = places[chosen], cosines[chosen]
        self._places, self._cosines = places, cosines

    def nearest_first(self) -> RowNumbers:
        """The rows by falling cosine, ties by row."""
        return self._places[np.argsort(-self._cosines, kind="stable")]


def _add(lists: list[_List], start: int, waiting: list[Cosines]) -> None:
    """Offer the rows of some blocks to every list."""
    if not waiting:
        return
    cosines = np.concatenate(waiting)
    places = np.flatnonzero(~np.isnan(cosines).any(axis=1))
    for target, each in enumerate(lists):
        each.add(start + places, cosines[places, target])
