"""Points → the nearest other points of each, approximately, by NN-Descent.

The algorithm is that of Dong, Charikar and Li 2011, which the paper's knn_i names: a neighbour's neighbour is likely
a neighbour. pynndescent computes it; what the memory allows and how many neighbours are worth holding is for here,
whether they are the right ones for the caller to measure.
"""

import os
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.common.errors import MissingExtraError
from im_datasets.models.devices import is_forked

SEED = 0

LEAST = 15
"""Neighbours of a point below which the descent finds hardly any right ones; held whatever the memory."""

STEPS = (45, 60, 90)
"""Neighbours of a point to try, one after the other, until enough right ones are found."""

MANY = 200_000
"""Points from which on the first of these steps is not tried: it would find too few."""

THREADS = 4
"""Threads of every descent, however many cores there are: the graph depends on their number."""

COPIES = 2
"""How many times the graph is in memory at the end, when it is handed over sorted."""


@dataclass(frozen=True)
class Descent:
    """How wide to search.

    Attributes:
        neighbours: Points held for each point, itself among them.
        candidates: Points of either kind, new and old, that are compared with each other around a point.
    """

    neighbours: int
    candidates: int

    def bytes_per_point(self) -> int:
        """Memory beside the points: an id, a distance and a flag a neighbour; an id and a rank a candidate."""
        return COPIES * 9 * self.neighbours + 2 * 8 * self.candidates + 64

    def run(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        """The nearest points of each point, nearest first, by euclidean distance.

        The same points in the same order give the same ids, on as many ``threads()``.

        Args:
            points: Shape (n, width), float32; may be mapped from a file. More of them than neighbours.

        Returns:
            Shape (n, neighbours): usually the point itself first; −1 where too few were found.
        """
        # Before the import: numba reads its number of threads once, when it is loaded.
        jobs = threads()
        from pynndescent import NNDescent

        with warnings.catch_warnings():
            # It says that some points have too few neighbours, which the caller sees in the result.
            warnings.simplefilter("ignore")
            index = NNDescent(
                np.asarray(points),
                n_neighbors=self.neighbours,
                max_candidates=self.candidates,
                random_state=SEED,
                n_jobs=jobs,
            )
        ids: NDArray[np.int32] = index.neighbor_graph[0]
        return ids


def check_installed() -> None:
    """Find out, without the seconds that an import takes, whether a descent can run here.

    Raises:
        MissingExtraError: pynndescent is not installed.
    """
    if find_spec("pynndescent") is None:
        raise MissingExtraError(
            "more rows than exact_limit are searched for neighbours by pynndescent, which is not installed: "
            "pip install 'im-datasets[large]', or pass KNNDistance(exact_limit=…) above the number of rows"
        )


def threads() -> int:
    """Threads that a descent runs on: ``THREADS``; fewer where numba was loaded for fewer, one in a forked process."""
    os.environ.setdefault("NUMBA_NUM_THREADS", str(max(THREADS, os.cpu_count() or 1)))
    from numba import config

    settings: Any = config
    return 1 if is_forked() else min(THREADS, int(settings.NUMBA_NUM_THREADS))


def descents(points: int, at_least: int, memory: int) -> list[Descent]:
    """The descents to try, the narrowest first, of those that the memory allows.

    Args:
        points: How many points there are.
        at_least: Neighbours, the point itself among them, that the caller needs of each.
        memory: Bytes beside the points; where not even the least descent fits, that one is tried all the same.

    Example:
        >>> [d.neighbours for d in descents(10**6, 11, 2**31)], [d.neighbours for d in descents(10**7, 11, 2**32)]
        ([60], [15])
    """
    least = max(LEAST, at_least)
    steps = STEPS if points <= MANY else STEPS[1:]
    widths = list(dict.fromkeys(max(step, 2 * at_least) for step in steps))
    wide = [Descent(width, width) for width in widths]
    if fitting := [descent for descent in wide if descent.bytes_per_point() * points <= memory]:
        return fitting
    narrow = (Descent(width, width) for width in range(widths[0], least, -1))
    fits = (descent for descent in narrow if descent.bytes_per_point() * points <= memory)
    return [next(fits, Descent(least, least))]
