"""A pool of scored rows → the subsets that calibration runs train on.

Each subset mixes the datasets by weights of its own, drawn from a Dirichlet distribution, so that mean indicators
vary from one subset to the next. With strata, its share of low-, middle- and high-scored rows varies as well.

Within a subset no row comes twice. Between subsets rows may repeat, as they do in the paper's random draws, unless
the subsets are asked to be disjoint. Rows that repeat an instruction of an evaluation set are no candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im_datasets.calibration.experiments.experiment import Job
from im_datasets.calibration.experiments.pool import Pool, PoolRows
from im_datasets.common.errors import CalibrationError


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How subsets are drawn.

    Attributes:
        subsets: How many.
        rows: Rows in each.
        seed: Of all draws. Subset i depends on it and on i alone, unless the subsets are disjoint: more of them can
            be asked for later, and those that are there stay as they are.
        concentration: Of the Dirichlet distribution over datasets: small makes a subset nearly one dataset, large
            makes all subsets alike.
        strata: Indicator columns. Each subset takes one of them in turn, cuts every dataset in ``levels`` equal
            parts by it, and draws weights of the parts from a Dirichlet distribution too. Without any, rows of a
            dataset are drawn alike.
        levels: Parts of each dataset.
        disjoint: Whether no row may be in two subsets.

    Raises:
        CalibrationError: A number is out of range.
    """

    subsets: int = 64
    rows: int = 1000
    seed: int = 0
    concentration: float = 1.0
    strata: Sequence[str] = ()
    levels: int = 3
    disjoint: bool = False

    def __post_init__(self) -> None:
        numbers = {"subsets": self.subsets, "rows": self.rows, "levels": self.levels}
        if wrong := [f"{name}={value!r}" for name, value in numbers.items() if value < 1]:
            raise CalibrationError(f"{', '.join(wrong)}; must be 1 or more")
        if not self.concentration > 0 or self.seed < 0:
            raise CalibrationError(f"concentration={self.concentration!r}, seed={self.seed!r}; above 0, and 0 or more")


def draw_mixtures(pool: Pool, mixing: Mixing) -> list[Job]:
    """Draw the subsets of calibration runs.

    Args:
        pool: The candidates.
        mixing: How to draw.

    Returns:
        One job per subset, ``mixing.rows`` rows each, in random order.

    Raises:
        CalibrationError: The pool has too few rows, lacks a column of the strata, or subsets would not differ.
    """
    needed = mixing.rows * (mixing.subsets if mixing.disjoint else 1)
    if needed > len(pool):
        raise CalibrationError(
            f"{mixing.subsets} subsets of {mixing.rows} rows need {needed} candidates and there are {len(pool)}; "
            "take fewer or smaller subsets, more data, or let subsets share rows"
        )
    if unknown := [name for name in mixing.strata if name not in pool.scores]:
        raise CalibrationError(f"no column {', '.join(unknown)} to make strata of; there are: {', '.join(pool.scores)}")
    if len(pool.origins) == 1 and not mixing.strata:
        raise CalibrationError(
            "subsets of one dataset without strata are all alike, and nothing can be fitted on them; pass several "
            "datasets, or strata such as im_quality"
        )
    levels = {name: _levels(pool, name, mixing.levels) for name in mixing.strata}
    free = np.ones(len(pool), dtype=bool)
    jobs = []
    for number in range(mixing.subsets):
        # A generator of its own, so that a subset stays what it is when more of them are asked for.
        random = np.random.default_rng([mixing.seed, number])
        stratum = mixing.strata[number % len(mixing.strata)] if mixing.strata else None
        level = levels[stratum] if stratum else np.zeros(len(pool), dtype=np.int64)
        rows, drawn = _draw(pool, level, free, mixing, random)
        if mixing.disjoint:
            free[rows] = False
        subset = {"number": number, "mixing_seed": mixing.seed, "stratum": stratum, **drawn}
        jobs.append(Job("calibration", f"mix{number:03d}", rows, mixing.seed + number, subset))
    return jobs


def _draw(
    pool: Pool, level: PoolRows, free: NDArray[np.bool_], mixing: Mixing, random: np.random.Generator
) -> tuple[PoolRows, dict[str, Any]]:
    """One subset's rows, and the weights it was drawn by."""
    depth = int(level.max()) + 1
    by_origin = random.dirichlet(np.full(len(pool.origins), mixing.concentration))
    by_level = random.dirichlet(np.full(depth, mixing.concentration))
    weights = np.outer(by_origin, by_level).ravel()
    cell = pool.origin * depth + level
    sizes = np.bincount(cell[free], minlength=len(weights))
    rows = []
    for number, count in enumerate(share_out(mixing.rows, weights, sizes)):
        if count:
            rows.append(random.choice(np.flatnonzero(free & (cell == number)), count, replace=False))
    drawn = {
        "weights": dict(zip(pool.names, np.round(by_origin, 4).tolist(), strict=True)),
        "levels": np.round(by_level, 4).tolist(),
    }
    return random.permutation(np.concatenate(rows)).astype(np.int64), drawn


def share_out(total: int, weights: NDArray[np.float64], sizes: NDArray[np.int64]) -> list[int]:
    """Whole numbers in proportion to weights that add up to a total, none above its size.

    What does not fit into one part goes to the others, in proportion to their weights.

    Args:
        total: At most the sum of the sizes.
        weights: Shape (n,), none negative.
        sizes: Shape (n,).

    Returns:
        n numbers.

    Example:
        >>> share_out(10, np.array([0.5, 0.3, 0.2]), np.array([2, 100, 100]))
        [2, 5, 3]
    """
    # A weight that a draw made zero still takes what nothing else has room for.
    weights, room = np.maximum(weights, 1e-12), np.ones(len(weights), dtype=bool)
    while True:
        rest = total - int(sizes[~room].sum())
        amounts = np.where(room, rest * weights / max(float(weights[room].sum()), 1e-12), sizes)
        full = room & (amounts > sizes)
        if not full.any():
            break
        room &= ~full
    counts = np.floor(amounts).astype(np.int64)
    # What rounding down left over goes to the largest remainders.
    by_remainder = np.argsort(counts - amounts, kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def _levels(pool: Pool, column: str, levels: int) -> PoolRows:
    """Which part of its dataset each candidate is in by a column, ties in row order: shape (n,)."""
    level = np.zeros(len(pool), dtype=np.int64)
    for number in range(len(pool.origins)):
        places = np.flatnonzero(pool.origin == number)
        order = np.argsort(pool.scores[column][places], kind="stable")
        level[places[order]] = np.arange(len(places)) * levels // max(1, len(places))
    return level
