"""What an engine is handed and what it owes: every missing shard computed by the scorer and written to the folder.

An engine decides where the scorer runs, and nothing of what comes out: the values are the scorer's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from datasets import Dataset

from im_datasets.common.errors import IndicatorError
from im_datasets.scoring.scorer import ShardScorer
from im_datasets.scoring.shards import ShardMeter, Shards


@dataclass(frozen=True)
class DatasetRows:
    """Rows by their numbers, read from a dataset; can be pickled, for processes that see its files.

    Attributes:
        dataset: Has the columns that are read, and no others.
    """

    dataset: Dataset

    def read(self, span: range) -> pa.Table:
        """Some rows, with the schema of their features."""
        table: pa.Table = self.dataset.with_format("arrow")[span.start : span.stop]
        return table.cast(self.dataset.features.arrow_schema)


@dataclass(frozen=True)
class Job:
    """The work of a run.

    Attributes:
        dataset: All rows, with at least the columns that the scorer reads; a view of files, never rows in memory.
        scorer: Scores the rows of a shard; can be pickled (with ``dill`` where a user's own indicator is in it).
        shards: Where they go; can be pickled, and writes from any process that sees the folder.
        missing: The shards to compute.
        files: Paths or ``hf://`` addresses of Parquet files whose rows, one after another, begin with the dataset's;
            empty where there are none.
    """

    dataset: Dataset
    scorer: ShardScorer
    shards: Shards
    missing: Sequence[int]
    files: Sequence[str] = ()

    def source(self) -> DatasetRows:
        """Where the rows are read that the scorer is given."""
        return DatasetRows(self.dataset.with_format(None).select_columns(self.scorer.reads))

    def rows(self, shard: int) -> pa.Table:
        """The columns of a shard's rows that the scorer reads, as a table with the schema of their features."""
        return self.source().read(self.shards.span(shard))


class Watcher(Protocol):
    """Who is told how a run goes on. Called in the process that runs the engine."""

    def moved(self, shard: int, rows: int, tokens: int) -> None:
        """So many rows of a shard that is being computed are done; tokens of it went through models."""

    def finished(self, shard: int, meter: ShardMeter) -> None:
        """A shard is in its place."""

    def noted(self, event: str, **facts: Any) -> None:
        """Something happened that a log should hold, such as the death of a worker."""


class ShardEngine(Protocol):
    """Computes shards, somewhere."""

    def run(self, job: Job, watcher: Watcher) -> None:
        """Compute and write every missing shard: ``job.shards.write(shard, job.scorer(job.rows(shard), start))``.

        Raises:
            ImDatasetsError: A shard cannot be computed or written; finished ones stay.
        """


def first_killer(count: int, kills: Callable[[int, int], bool]) -> int | None:
    """Search rows that kill their process for the one that does.

    Args:
        count: How many rows there are.
        kills: Whether a process of its own dies over the rows from a first one to before another.

    Returns:
        Its number; None where only several together do.

    Example:
        >>> first_killer(9, lambda low, high: low <= 4 < high)
        4
        >>> first_killer(9, lambda low, high: high - low > 5) is None
        True
    """
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if kills(low, middle) else (middle, high)
    return low if high > low and kills(low, high) else None


def died_over(tries: int, span: range, row: int | None, why: str) -> IndicatorError:
    """The error over a shard that several workers died over.

    Args:
        tries: How many.
        span: The shard's rows.
        row: The row that kills; None where none does by itself.
        why: What is known of their death.
    """
    where = f"rows {span.start} to {span.stop - 1}" if row is None else f"row {row}"
    advice = "free memory or pass fewer workers" if row is None else "mend or remove it"
    return IndicatorError(
        f"{tries} workers died over {where} ({why}); {advice} and run the same again: finished shards are kept"
    )
