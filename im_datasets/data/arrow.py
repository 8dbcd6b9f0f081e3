"""Rows picked from a dataset by their numbers → the same rows laid out on disk, to be written as they lie.

A dataset that was selected from another reads each row as a slice of its own: a tenth of a millisecond and some
kilobytes for each that is written at a time. Here a block of rows is taken from each Arrow batch at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

BLOCK_BYTES = 32 * 2**20
"""Of rows that are in memory at a time, if all are of the mean length."""


@contextmanager
def laid_out(dataset: Dataset, folder: Path) -> Iterator[Dataset]:
    """The same rows, columns and features without indices.

    Args:
        dataset: Rows, perhaps picked from another dataset, in any order.
        folder: An existing folder; the rows lie in a temporary file there as long as the block lasts.

    Yields:
        The dataset itself where it has no indices.
    """
    if dataset._indices is None or not len(dataset):
        yield dataset
        return
    rows = dataset._indices.column(0).to_numpy()
    table = dataset.data.table.select(dataset.column_names)
    mean = max(1, table.nbytes // max(1, len(table)))
    size = max(1, BLOCK_BYTES // mean)
    batches = table.to_batches()
    with TemporaryDirectory(dir=folder, prefix=".rows-") as place:
        path = Path(place) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            for start in range(0, len(rows), size):
                writer.write_table(_taken(batches, rows[start : start + size]))
        yield Dataset.from_file(str(path), info=dataset.info.copy(), split=dataset.split)


def _taken(batches: list[pa.RecordBatch], rows: NDArray[np.uint64]) -> pa.Table:
    """Some rows of a table of these batches, in the order asked for."""
    starts = np.cumsum([0, *map(len, batches)])
    order = np.argsort(rows, kind="stable")
    ascending = rows[order].astype(np.int64)
    cuts = np.searchsorted(ascending, starts)
    pieces = [
        batch.take(pa.array(ascending[low:high] - first))
        for batch, first, low, high in zip(batches, starts, cuts, cuts[1:], strict=False)
        if low < high
    ]
    # The pieces hold the rows in ascending order: each goes back to the place it was asked for.
    places = np.empty(len(rows), dtype=np.int64)
    places[order] = np.arange(len(rows))
    return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(places))


RowNumbers = NDArray[np.int64]


def read_column(ds: Dataset, name: str) -> pa.ChunkedArray:
    """One column in row order, straight from Arrow: len(ds) values."""
    return ds.select_columns([name]).with_format("arrow")[:][name]


def pick_rows(full: Dataset, rows: RowNumbers) -> Dataset:
    """``full.select(rows)``, which would make a Python number of each row."""
    if len(rows) == 0:
        return full.select([])
    # As `datasets` keeps its own, so that it goes on with them.
    places = pa.table({"indices": pa.array(rows, type=pa.uint64())})
    # Of rows and source: `datasets` finds what it computed before by the fingerprint alone.
    fingerprint = sha256(full._fingerprint.encode() + rows.tobytes()).hexdigest()[:16]
    return Dataset(full.data, info=full.info.copy(), split=full.split, indices_table=places, fingerprint=fingerprint)


def in_order(ds: Dataset) -> Dataset:
    """A table in row order, so that columns can be put beside it.

    ``flatten_indices`` gives the same by way of Python objects, four times slower.
    """
    if ds._indices is None:
        return ds
    table = ds.with_format("arrow").map(_same, batched=True, features=ds.features, desc="Ordering the rows")
    return table.with_format(None)


def _same(table: pa.Table) -> pa.Table:
    return table
