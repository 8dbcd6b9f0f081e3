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
from im_datasets.report.formatting import format_count, format_share
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import Selection

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Side:
    """One side's values of one column: how many are scored, their mean and median (NaN when none is)."""

    count: int
    mean: float
    median: float

    @classmethod
    def of(cls, values: FloatArray) -> Self:
        """Describe the values, NaN left out."""
        scored = finite(values)
        if not len(scored):
            return cls(0, math.nan, math.nan)
        return cls(len(scored), float(scored.mean()), float(np.median(scored)))


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
    left, right = finite(left), finite(right)
    if not len(left) or not len(right):
        return math.nan
    ranks = average_ranks(np.concatenate([left, right]))[: len(left)]
    wins = ranks.sum() - len(left) * (len(left) + 1) / 2
    return float(wins / (len(left) * len(right)))


def average_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing the mean of theirs.

    >>> average_ranks(np.array([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)


def rank_correlations(columns: list[FloatArray]) -> FloatArray:
    """Spearman's rank correlation of every two columns, over the rows in which both are numbers.

    Args:
        columns: Arrays of shape (rows,).

    Returns:
        Shape (columns, columns), -1..1; NaN where a column is constant or fewer than three rows have both.
    """
    size = len(columns)
    matrix = np.full((size, size), np.nan)
    for i, left in enumerate(columns):
        for j, right in enumerate(columns[: i + 1]):
            matrix[i, j] = matrix[j, i] = _rank_correlation(left, right)
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
    columns = (scores.both(name) if name in scores.kept else np.empty(0) for name in rule.columns)
    return [Side.of(term.contribution(values)).mean for term, values in zip(rule.terms, columns, strict=True)]


def headline(kept: int, rows: int) -> str:
    """What came of a selection, in one phrase.

    >>> headline(2000, 52002)
    'Kept 2,000 of 52,002 rows (3.8 %)'
    """
    share = f" ({format_share(kept, rows)})" if kept else ""
    return f"Kept {format_count(kept) if kept else 'none'} of {format_count(rows)} rows{share}"


def read_in_part(source: Mapping[str, Any]) -> str:
    """Which rows of a source were read, where a limit kept the others out; else an empty text.

    Args:
        source: As a record tells it: ``limit`` asked for, ``rows`` read, ``seed`` they were drawn with.

    >>> read_in_part({"limit": 300, "rows": 300, "seed": None}), read_in_part({"limit": 300, "rows": 12})
    ('the first 300 rows', '')
    """
    limit, read = source.get("limit"), source.get("rows") or 0
    if not limit or read < limit:
        return ""
    rows = f"{format_count(read)} rows"
    return f"the first {rows}" if source.get("seed") is None else f"{format_count(read)} randomly drawn rows"


def shortfall(selection: Selection) -> str:
    """A sentence when fewer rows were left than asked for; else an empty text.

    Args:
        selection: Its settings say how many are missing.
    """
    return told_shortfall(selection.settings.get("shortfall") or 0)


def told_shortfall(missing: int) -> str:
    """The sentence for so many missing rows; an empty text for none."""
    return f"{format_count(missing)} rows fewer than asked for: the checks left no more." if missing else ""


def asked(selection: Selection) -> dict[str, Any]:
    """What was asked of a selection, without what came of it."""
    return {name: value for name, value in selection.settings.items() if name != "shortfall"}


def scored_rows(values: FloatArray) -> int:
    """How many values are numbers."""
    return int(np.isfinite(values).sum())


def _rank_correlation(left: FloatArray, right: FloatArray) -> float:
    both = np.isfinite(left) & np.isfinite(right)
    if both.sum() < 3:
        return math.nan
    x, y = average_ranks(left[both]), average_ranks(right[both])
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread else math.nan


def _floats(rows: Dataset, names: Iterable[str]) -> dict[str, FloatArray]:
    names = list(names)
    present = [name for name in names if name in rows.column_names]
    table = rows.select_columns(present).with_format("arrow")[:] if present else None
    missing = np.full(len(rows), np.nan)
    return {
        name: np.asarray(table[name].to_numpy(), dtype=np.float64) if table and name in present else missing
        for name in names
    }
