"""What an indicator is.

An indicator is a frozen dataclass that holds settings and never a model. Calling it with a batch gives new
columns only: one float per row, in row order, the same whatever the batch size; NaN where the row could not be
scored. README, dataset cards and metric modules take names, units, ranges and directions from ``COLUMNS``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.models.devices import on_rank

Batch = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Indicator(ABC):
    """A batch function from rows to one or more columns of floats.

    Attributes:
        columns: Where instruction and response stand; None finds them by the names of the columns.
    """

    version: ClassVar[str]
    """Part of the cache key; rises whenever the numbers change."""

    columns: Columns | None = None

    @property
    @abstractmethod
    def writes(self) -> tuple[str, ...]:
        """Names of the columns a call returns."""

    @abstractmethod
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        """Score non-empty pairs.

        Args:
            instructions: Non-blank texts, shape (n,).
            responses: Non-blank texts, shape (n,).

        Returns:
            For every name in ``writes``, n floats in the same order; NaN where a pair could not be scored.

        Raises:
            ModelError: A model that it needs cannot be had, is of another kind, or lacks weights.
        """

    def score_turns(self, pairs: Pairs) -> Mapping[str, ArrayLike]:
        """Score scorable pairs with all their turns; by default as one text each, by ``score``.

        Args:
            pairs: n pairs without a reason against them.
        """
        return self.score(pairs.instructions, pairs.responses)

    def __call__(self, batch: Batch, rank: int | None = None) -> dict[str, list[float]]:
        """Score a batch as ``Dataset.map(batched=True)`` hands it over.

        Args:
            batch: Columns of equal length.
            rank: The process's number, as ``with_rank=True`` gives it, so that each takes a GPU of its own; None
                in a single process.

        Returns:
            For every name in ``writes``, one float per row in row order; NaN where it could not be scored.

        Raises:
            ColumnsError: Instruction and response cannot be told from the column names.
        """
        columns = self.columns or Columns.detect(list(batch))
        # Of several processes each takes the GPU of its rank.
        with on_rank(rank):
            return self.score_pairs(columns.pairs(batch))

    def score_pairs(self, pairs: Pairs) -> dict[str, list[float]]:
        """Score the pairs that can be scored; the others are NaN."""
        rows, scorable = pairs.scorable()
        scores = self.score_turns(scorable) if rows else {}
        return {name: scatter(scores.get(name, ()), rows, len(pairs)) for name in self.writes}

    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:  # noqa: ARG002
        """The texts that scoring these pairs embeds with the indicator's ``embedder``; none by default.

        The scoring stage embeds them for all indicators at once.
        """
        return []

    def settings(self) -> dict[str, Any]:
        """The settings as plain data for a record, without the columns (which the record holds once)."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "columns"}
        return {n: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for n, v in values.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Settings and version: all that a `datasets` cache key, a hash of the pickle, should depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"version": self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings; the version is the class's own."""
        for name, value in state.items():
            if name != "version":
                object.__setattr__(self, name, value)


def scatter(values: ArrayLike, rows: list[int], length: int) -> list[float]:
    """Put values at their rows, NaN elsewhere: shape (length,)."""
    column = np.full(length, np.nan)
    if rows:
        column[rows] = np.asarray(values, dtype=np.float64)
    return column.tolist()
