"""The numbers behind report and card: the scores of both sides, how they compare, what made a row's score.

Reads score columns only, never a text.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.indicators.score_columns import COLUMNS, Column, describe_column
from im_datasets.rules.linear import LOG_LOSS, LinearRule, countable
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.statistics import describe
from im_datasets.selection.select import Selection

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One side's values of one column: how many are scored, their mean and median (NaN when none is)."""

    count: int
    mean: float
    median: float

    @classmethod
    def of(cls, values: FloatArray) -> Self:
        """Describe the values, NaN left out."""
        described = describe(values)
        return cls(int(described["count"]), described.get("mean", math.nan), described.get("median", math.nan))


@dataclass(frozen=True)
class Comparison:
    """One column, kept against dropped.

    Attributes:
        column: Which.
        kept: The kept side.
        dropped: The dropped side.
        superiority: Share of (kept, dropped) pairs in which the kept row has the higher value, ties counted
            half; 0..1, 0.5 = no difference, NaN when a side has no value.
    """

    column: Column
    kept: Side
    dropped: Side
    superiority: float


@dataclass(frozen=True)
class Scores:
    """The score columns of both sides of a selection.

    Attributes:
        kept: Column → values of the kept rows in their order, shape (kept,); NaN = could not be scored.
        dropped: The same for the dropped rows.
        cut: Log loss of the worst kept row; None when nothing is kept.
    """

    kept: dict[str, FloatArray]
    dropped: dict[str, FloatArray]
    cut: float | None

    @classmethod
    def of(cls, selection: Selection, record: ScoringRecord | None = None) -> Self:
        """Read the score columns of a selection.

        Args:
            selection: Both sides.
            record: How they were scored; names the columns of indicators of the user's own. None takes the
                selection's.
        """
        present = {*selection.kept.column_names, *selection.dropped.column_names}
        own = score_columns(record or selection.record)
        names = [name for name in dict.fromkeys((*COLUMNS, *own)) if name in present]
        return cls(_floats(selection.kept, names), _floats(selection.dropped, names), selection.cut)

    @property
    def indicators(self) -> list[str]:
        """The indicator columns that are there, in the order of ``COLUMNS``, the user's own after them."""
        return [name for name in self.kept if name != LOG_LOSS]

    def both(self, name: str) -> FloatArray:
        """A column over all rows, the kept ones first: shape (rows,)."""
        return np.concatenate([self.kept[name], self.dropped[name]])

    def compare(self, name: str) -> Comparison:
        """A column's kept side against its dropped side."""
        kept, dropped = self.kept[name], self.dropped[name]
        return Comparison(describe_column(name), Side.of(kept), Side.of(dropped), superiority(kept, dropped))


def score_columns(record: ScoringRecord | None) -> list[str]:
    """The columns that a scoring wrote and those that its rule reads; none where it is not known."""
    if record is None:
        return []
    written = [name for indicator in record.indicators for name in indicator.writes]
    return list(dict.fromkeys([*written, *record.rule.columns]))


def finite(values: FloatArray) -> FloatArray:
    """The values that are numbers."""
    return values[np.isfinite(values)]


def superiority(left: FloatArray, right: FloatArray) -> float:
    """How often a value of the left is higher than one of the right (Mann-Whitney U over all pairs).

    Args:
        left: Values, NaN left out.
        right: Values, NaN left out.

    Returns:
        0..1, ties counted half; NaN when a side is empty.

    >>> superiority(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    left, right = finite(left), finite(right)
    if not len(left) or not len(right):
        return math.nan
    # From the ranks alone: scipy's own test would also work out a p-value, which divides by 0 where all are equal.
    ranks = rankdata(np.concatenate([left, right]))[: len(left)]
    # The ranks that the left values have among themselves are no wins.
    wins = ranks.sum() - len(left) * (len(left) + 1) / 2
    return float(wins / (len(left) * len(right)))


def rank_correlations(columns: list[FloatArray]) -> FloatArray:
    """Spearman's rank correlation of every two columns, over the rows in which both are numbers.

    Args:
        columns: Arrays of shape (rows,).

    Returns:
        Shape (columns, columns), -1..1; NaN where a column is constant or fewer than three rows have both.
    """
    from scipy.stats import spearmanr

    size = len(columns)
    matrix = np.full((size, size), np.nan)
    for i, left in enumerate(columns):
        for j, right in enumerate(columns[: i + 1]):
            both = np.isfinite(left) & np.isfinite(right)
            # scipy warns of a constant column and of two rows, where the answer is NaN as well.
            if both.sum() >= 3 and np.ptp(left[both]) and np.ptp(right[both]):
                matrix[i, j] = matrix[j, i] = spearmanr(left[both], right[both]).statistic
    return matrix


def contributions(rule: LinearRule, values: Mapping[str, float]) -> list[float]:
    """What each term of a rule adds to a row's predicted log loss.

    Args:
        rule: The rule.
        values: Column → the row's value.

    Returns:
        Per term its coefficient times the clipped value; NaN where the value is.
    """
    return [float(term.contribution(values.get(term.column, math.nan))) for term in rule.terms]


def mean_contributions(rule: LinearRule, scores: Scores) -> list[float]:
    """What each term of a rule adds on average over all rows that have its column; NaN where none has."""
    columns = [scores.both(name) if name in scores.kept else np.empty(0) for name in rule.columns]
    added = [term.contribution(values) for term, values in zip(rule.terms, columns, strict=True)]
    return [describe(values).get("mean", math.nan) for values in added]


def request_settings(selection: Selection) -> dict[str, Any]:
    """What was asked of a selection, without what came of it."""
    return {name: value for name, value in selection.settings.items() if name != "shortfall"}


def scored_rows(values: FloatArray) -> int:
    """How many values are numbers."""
    return int(np.isfinite(values).sum())


def _floats(rows: Dataset, names: Iterable[str]) -> dict[str, FloatArray]:
    names = list(names)
    present = [name for name in names if name in rows.column_names]
    # As Arrow: a list of Python floats would take several times the memory of millions of scores.
    table = rows.select_columns(present).with_format("arrow")[:] if present else None
    missing = np.full(len(rows), np.nan)
    return {
        name: countable(np.asarray(table[name].to_numpy(), dtype=np.float64)) if table and name in present else missing
        for name in names
    }
