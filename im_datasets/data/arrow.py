"""Rows of a dataset as they lie in Arrow: picked by their numbers, laid out on disk, media left undecoded.

A dataset that was selected from another reads each row as a slice of its own: a tenth of a millisecond and some
kilobytes for each that is written at a time. Here a block of rows is taken from each Arrow batch at once.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Json, LargeList, List
from datasets.arrow_writer import get_writer_batch_size_from_data_size, get_writer_batch_size_from_features
from datasets.features.features import generate_from_arrow_type
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
Rows = TypeVar("Rows", Dataset, IterableDataset)


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


def write_parquet(rows: Dataset, path: Path) -> int:
    """``rows.to_parquet(path)``, which would ask for the size of every file and address that a row names.

    Returns:
        Bytes of the rows in memory.
    """
    group = get_writer_batch_size_from_features(rows.features)
    group = group or get_writer_batch_size_from_data_size(len(rows), undecoded(rows)._estimate_nbytes())
    size: int = rows.to_parquet(path, batch_size=group)
    return size


def is_media(feature: Any) -> bool:
    """Whether a feature is of images, sounds or the like: of bytes, or the path or address of a file, to be decoded."""
    return hasattr(feature, "decode_example") and not isinstance(feature, Json)


def media_columns(features: Features, names: Iterable[str]) -> list[str]:
    """Those of the columns that hold nothing but media, one or a list of them in each row."""

    def innermost(feature: Any) -> Any:
        return innermost(feature.feature) if isinstance(feature, List | LargeList) else feature

    return [name for name in names if name in features and is_media(innermost(features[name]))]


def undecoded(rows: Rows) -> Rows:
    """The same rows, to be read: media are what is stored of them, their bytes and path, and no file is opened.

    A row may come from anybody, and so may name any file or address. `datasets` opens it when such a row is read.
    A stream still calls them media, as far as its features are known.

    Example:
        >>> from datasets import Image
        >>> rows = Dataset.from_dict({"image": ["/dev/null"]}, features=Features({"image": Image()}))
        >>> undecoded(rows)[0]
        {'image': {'bytes': None, 'path': '/dev/null'}}
    """
    if isinstance(rows, Dataset):
        return with_features(rows.with_format(None), stored(rows.features))
    has_media = bool(rows.features) and stored(rows.features) != rows.features
    return rows.decode(False) if has_media else rows


def with_features(ds: Dataset, features: Features) -> Dataset:
    """The same rows by other features of the same storage."""
    if features == ds.features:
        return ds
    info = ds.info.copy()
    info.features = features
    # The old features in the table's metadata would contradict these.
    table = ds.data.replace_schema_metadata(None)
    fingerprint = sha256(f"{features} {ds._fingerprint}".encode()).hexdigest()[:16]
    return Dataset(table, info=info, split=ds.split, indices_table=ds._indices, fingerprint=fingerprint)


def stored(features: Features) -> Features:
    """The features of what is stored: plain bytes and paths in the place of media.

    Example:
        >>> from datasets import Audio
        >>> stored(Features({"sound": Audio()}))
        {'sound': {'bytes': Value('binary'), 'path': Value('string')}}
    """

    def plain(feature: Any) -> Any:
        if isinstance(feature, dict):
            return {name: plain(inner) for name, inner in feature.items()}
        if isinstance(feature, List):
            return List(plain(feature.feature), length=feature.length)
        if isinstance(feature, LargeList):
            return LargeList(plain(feature.feature))
        return generate_from_arrow_type(feature()) if is_media(feature) else feature

    return Features(plain(features))
