"""Rows of a dataset by their numbers, read from its Parquet files wherever these can be reached.

So each of many machines reads its own part of a dataset, from a shared folder or from the Hub, and nobody has to hand
rows out. Which rows are wanted, and what for, is left to others.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from datasets.table import table_cast
from fsspec.core import url_to_fs

from im_datasets.common.errors import SourceError, message_of

READ_ROWS = 1024
"""Rows that are decoded at a time."""

OPENED_AT_A_TIME = 16
"""Files whose footers are read side by side: on the Hub it is all waiting."""

_TAIL = 8
"""Bytes at the end of a Parquet file: the footer's length and a mark."""


@dataclass(frozen=True)
class RowFile:
    """A Parquet file.

    Attributes:
        path: A path, or an ``hf://`` address with its commit.
        footer: SHA-256 of the file's footer, which holds the places, sizes and bounds of all its parts.
        groups: Rows of each row group.
    """

    path: str
    footer: str
    groups: tuple[int, ...]

    @classmethod
    def open(cls, path: str) -> Self:
        """Read a file's footer.

        Raises:
            SourceError: It cannot be read.
        """
        with _opened(path) as file:
            footer, metadata = _footer(file), pq.read_metadata(file)
        groups = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        return cls(path, footer, groups)

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.groups)

    def read(self, span: range, columns: Sequence[str]) -> pa.Table:
        """Some of its rows by their numbers in the file: those of the columns that it has, in the order asked for.

        Raises:
            SourceError: The file cannot be read here, or is not the one that was opened first.
        """
        ends = list(accumulate(self.groups))
        groups = [g for g, end in enumerate(ends) if end > span.start and end - self.groups[g] < span.stop]
        first = ends[groups[0]] - self.groups[groups[0]]
        pieces = []
        with _opened(self.path) as file:
            if _footer(file) != self.footer:
                raise SourceError(f"{self.path} is not the file it was when the run began; run the same again")
            # Buffered: neighbouring columns are fetched in one request, and requests go out side by side.
            parquet = pq.ParquetFile(file, pre_buffer=True)
            has = [name for name in columns if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(READ_ROWS, row_groups=groups, columns=has):
                low, high = max(span.start - first, 0), min(span.stop - first, batch.num_rows)
                pieces += [batch.slice(low, high - low)] if low < high else []
                first += batch.num_rows
                if first >= span.stop:
                    break
        # Batches have their columns in the file's order.
        return pa.Table.from_batches(pieces).select(has)


@dataclass(frozen=True)
class RowFiles:
    """Parquet files whose rows, one file after another, are a dataset's.

    Attributes:
        files: In the order of the rows.
        features: The features of the columns that are read.
    """

    files: tuple[RowFile, ...]
    features: Features

    @classmethod
    def open(cls, paths: Sequence[str], features: Features) -> Self:
        """Read the footers of all files.

        Raises:
            SourceError: One cannot be read.
        """
        with ThreadPoolExecutor(OPENED_AT_A_TIME) as pool:
            return cls(tuple(pool.map(RowFile.open, paths)), features)

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def longest_group(self) -> int:
        """Rows of the longest row group: what is fetched at a time, however few of them are wanted."""
        return max((group for file in self.files for group in file.groups), default=0)

    def read(self, span: range) -> pa.Table:
        """Rows by their numbers in the dataset, with the schema of the features; a column that a file lacks is null.

        Raises:
            SourceError: A file cannot be read here, or has changed.
        """
        parts, first = [], 0
        for file in self.files:
            low, high = max(span.start - first, 0), min(span.stop - first, file.rows)
            if low < high:
                parts.append(table_cast(file.read(range(low, high), list(self.features)), self.features.arrow_schema))
            first += file.rows
        return pa.concat_tables(parts)

    def are_here(self) -> bool:
        """Whether this machine sees the same files."""
        try:
            return all(RowFile.open(file.path) == file for file in self.files)
        except SourceError:
            return False


@contextmanager
def _opened(path: str) -> Any:
    """A file of any file system, whatever goes wrong with it one clear line."""
    try:
        system, place = url_to_fs(path)
        with system.open(place, "rb") as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        fix = "; if it is gated or private, set HF_TOKEN on every node" if path.startswith("hf://") else ""
        raise SourceError(f"cannot read {path} here: {message_of(error)}{fix}") from error


def _footer(file: IO[bytes]) -> str:
    end = file.seek(0, 2)
    file.seek(end - _TAIL)
    size = int.from_bytes(file.read(_TAIL // 2), "little")
    file.seek(max(end - _TAIL - size, 0))
    return sha256(file.read(size)).hexdigest()
