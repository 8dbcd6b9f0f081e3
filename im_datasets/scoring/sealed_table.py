"""Parquet tables that carry facts about themselves, and checksums: what is read back is what was written, or an error.

A machine that crashes may leave a file with its name, its size and other content than was written to it.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from im_datasets.common.errors import OutputError

_FACTS, _SUM = b"im_datasets", b"im_datasets.sum"
"""Keys in a Parquet file's metadata: what the table is, and a checksum of that."""


def seal(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """The table with some facts, plain data, and the checksums of both in its metadata."""
    content = json.dumps({**facts, "table": _table_checksum(table)}).encode()
    return table.replace_schema_metadata({_FACTS: content, _SUM: str(zlib.crc32(content)).encode()})


def read_sealed(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table of a file and its facts.

    Raises:
        OutputError: It is not there, not whole, or was never sealed.
    """
    with readable(path):
        # A mapped file that is cut while it is read ends the process.
        table = pq.read_table(path, memory_map=False)
        facts = _facts(table.schema)
        if _table_checksum(table) != facts["table"]:
            raise ValueError("it is damaged")
    return table.replace_schema_metadata(None), facts


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone, without reading the table.

    Raises:
        OutputError: They are not there, or not whole.
    """
    with readable(path):
        return _facts(pq.read_schema(path))


def checksum(array: NDArray[Any]) -> int:
    """CRC-32 of an array's shape and bytes."""
    shape = zlib.crc32(repr(array.shape).encode())
    # A buffer with a dimension of 0 cannot be cast.
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"), shape) if array.size else shape


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever reading a broken file raises, as one clear line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
        raise OutputError(f"{path} cannot be read ({error}); remove it and run the same again") from error


def _facts(schema: pa.Schema) -> dict[str, Any]:
    metadata = schema.metadata or {}
    if int(metadata[_SUM]) != zlib.crc32(metadata[_FACTS]):
        raise ValueError("its metadata are damaged")
    facts: dict[str, Any] = json.loads(metadata[_FACTS])
    return facts


def _table_checksum(table: pa.Table) -> int:
    """CRC-32 of a table's names, numbers and texts."""
    total = zlib.crc32(repr(table.column_names).encode())
    for name in table.column_names:
        column = table[name]
        is_number = pa.types.is_floating(column.type)
        content = column.to_numpy().tobytes() if is_number else json.dumps(column.to_pylist()).encode()
        total = zlib.crc32(content, total)
    return total
