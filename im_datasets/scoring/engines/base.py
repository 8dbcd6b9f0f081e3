"""What an engine is handed and what it owes: every missing shard computed by the scorer and written to the folder.

An engine decides where the scorer runs, and nothing of what comes out: the values are the scorer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from datasets import Dataset

from im_datasets.models.value_store import current_store
from im_datasets.scoring.progress import Progress
from im_datasets.scoring.scorer import ShardScorer
from im_datasets.scoring.shards import Shards

TRIES = 3
"""Workers that may die over one shard."""

AHEAD = 2
"""Shards that a worker is handed at a time, so that it never waits for the next."""


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
    """The work of a run that its engine is given.

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


class ShardEngine(Protocol):
    """Computes shards, somewhere."""

    def run(self, job: Job, progress: Progress) -> None:
        """Compute and write every missing shard: ``job.shards.write(shard, job.scorer(job.rows(shard), start))``.

        Args:
            job: The work.
            progress: Told how it goes on, in the process that runs the engine.

        Raises:
            ImDatasetsError: A shard cannot be computed or written; finished ones stay.
        """


def store_folder() -> Path | None:
    """Folder of this process's store of computed values, for a worker to share; None where nothing is kept."""
    store = current_store()
    return store.path.parent.absolute() if store else None
