"""What a Parquet file of a stranger would come to in memory, found out before it is read as a whole.

A file may say that a value repeats two thousand million times. Its footer is asked first, which may lie; then its rows
are gone through a few at a time, texts as numbers into a dictionary, and what they would come to is counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from im_datasets.common.errors import UntrustedError
from im_datasets.common.untrusted import parse_json, shown

FLOOR_BYTES = 256 * 2**20
"""What any file may come to in memory: it takes no machine down."""

EXPANSION = 64
"""Bytes in memory for each byte of a file, beyond that floor: texts come to 2 to 10, scores to less."""

ROW_BYTES = 64
"""What a row counts for at least: the numbers and reasons of rows become objects of Python."""

COLUMNS = 10_000
"""The most columns that are read, those inside of others included."""

COMPRESSION = ("UNCOMPRESSED", "SNAPPY")
"""How the columns of a publication are compressed; none of these makes a page more than 64 times as large."""

_BATCH_ROWS = 4096


def check_parquet(files: Mapping[str, Path], *, compression: Sequence[str] | None = None) -> None:
    """Refuse Parquet files that would come to more in memory than files of their size should.

    Args:
        files: What each is, for the error, and where it lies; all of them are to be read.
        compression: Which is accepted; None is any.

    Raises:
        UntrustedError: They would come to more than ``FLOOR_BYTES`` and ``EXPANSION`` times their size, or one has more
            than ``COLUMNS`` columns, or one of a type or compression that is not read, or is no Parquet or broken.
    """
    most, used = FLOOR_BYTES + EXPANSION * sum(path.stat().st_size for path in files.values()), 0
    for what, path in files.items():
        try:
            used = _check_file(path, what, used, most, compression)
        except UntrustedError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UntrustedError(f"{what} cannot be read as Parquet: {type(error).__name__}") from error


def _check_file(path: Path, what: str, used: int, most: int, compression: Sequence[str] | None) -> int:
    """What all files up to this one come to."""
    with pq.ParquetFile(path) as plain:
        _check_footer(plain, what, most, compression)
        texts = [plain.schema.column(place).path for place in range(plain.metadata.num_columns)]
        # Only texts are read so; the reader leaves the others as they are.
        with pq.ParquetFile(path, read_dictionary=texts) as short:
            for group in range(plain.metadata.num_row_groups):
                try:
                    used = _check_group(short, group, what, used, most)
                except pa.ArrowNotImplementedError:
                    # Texts inside of lists, of which a part lies in a dictionary and a part does not.
                    used = _check_group(plain, group, what, used, most)
    return used


def _check_group(file: pq.ParquetFile, group: int, what: str, used: int, most: int) -> int:
    """What all row groups up to this one come to."""
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], use_threads=False):
        used += sum(map(_decoded_bytes, batch.columns)) + ROW_BYTES * batch.num_rows
        _check_size(used, what, most)
    return used


def _check_footer(file: pq.ParquetFile, what: str, most: int, compression: Sequence[str] | None) -> None:
    footer = file.metadata
    if footer.num_columns > COLUMNS:
        raise UntrustedError(f"{what} has {footer.num_columns:,} columns; more than {COLUMNS:,} are not read")
    _check_size(ROW_BYTES * footer.num_rows, what, most)
    pages = values = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        pages += sum(chunk.total_uncompressed_size for chunk in chunks)
        # Where lists end takes two bytes of each value, though all are the same.
        values += sum(2 * chunk.num_values for chunk in chunks)
        if compression and (other := {chunk.compression for chunk in chunks} - set(compression)):
            raise UntrustedError(f"{what} is compressed by {', '.join(sorted(other))}, which no push uses")
    _check_size(max(pages, values), what, most)
    for field in file.schema_arrow:
        if strange := _strange_type(field.type):
            raise UntrustedError(f"the column {shown(repr(field.name))} of {what} is of the type {strange}, not read")
    if features := (file.schema_arrow.metadata or {}).get(b"huggingface"):
        parse_json(features, f"what `datasets` wrote into {what}")


def _check_size(size: int, what: str, most: int) -> None:
    if size > most:
        raise UntrustedError(
            f"{what}, and what is read before it, would come to more than {most:,} bytes in memory: {EXPANSION} times "
            f"the files' size, and {FLOOR_BYTES:,}; it is not read"
        )


def _strange_type(kind: pa.DataType) -> str | None:
    """An extension type inside of a type that `datasets` does not bring; None where there is none."""
    if isinstance(kind, pa.BaseExtensionType):
        is_known = type(kind).__module__.startswith("datasets.") or kind.extension_name in {"arrow.json", "arrow.uuid"}
        return None if is_known else shown(kind.extension_name)
    inside = [kind.field(place).type for place in range(kind.num_fields)]
    return next((strange for each in inside if (strange := _strange_type(each))), None)


def _decoded_bytes(array: Any) -> int:
    """What an array comes to with its texts written out."""
    if isinstance(array, pa.ExtensionArray):
        return _decoded_bytes(array.storage)
    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return (pc.sum(lengths.take(array.indices)).as_py() or 0) + 4 * len(array)
    if pa.types.is_nested(array.type) and not pa.types.is_union(array.type):
        children = array.flatten()
        inside = children if isinstance(children, list) else [children]
        return sum(map(_decoded_bytes, inside)) + 8 * len(array)
    return int(array.nbytes)
