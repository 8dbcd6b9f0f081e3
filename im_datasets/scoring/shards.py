"""The folder of one scoring run: finished shards of its rows, and what the run was asked.

A run over n rows is cut into shards of equal size. A finished shard is one Parquet file of narrow columns (and, for
indicators that compare rows, one ``.npy`` of vectors each beside it). Files are written aside, flushed and renamed,
the Parquet file last, so that a shard is finished whole or not at all, whatever kills the run. ``run.json`` holds the
request; work of another request is never mixed in. Knows nothing of indicators, models or engines.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from im_datasets.common.errors import OutputError
from im_datasets.common.storage import output_errors, written_whole

SHARD_ROWS = 8192
"""Rows of a shard: what a killed run computes again at most, for each worker."""

RUN, LOCK, SCORES = "run.json", ".lock", "scores.arrow"
RUN_SCHEMA = 1

_FACTS, _SUM = b"im_datasets", b"im_datasets.sum"
"""Keys in a Parquet file's metadata: what the shard is, and a checksum of that."""


@dataclass
class PartMeter:
    """What one part of a shard's work came to.

    Attributes:
        seconds: Wall seconds in the process that did it.
        tokens: Real tokens that went through a model.
        truncated: Rows (or texts) that were cut to the model's length.
        reused: Model inputs whose values were in the store already.
        computed: Model inputs that went through a model.
    """

    seconds: float = 0.0
    tokens: int = 0
    truncated: int = 0
    reused: int = 0
    computed: int = 0

    def add(self, other: "PartMeter") -> None:
        """Add another part's figures."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class ShardMeter:
    """What a shard's work came to.

    Attributes:
        parts: Name of a part → its figures. Parts are ``read``, ``embedding:<number of the embedder>``, and for each
            indicator the first column it writes.
        workers: Processes that worked side by side when this shard was computed.
        engine: Who computed it.
        version: Of the engine; None where that is this package itself.
    """

    parts: dict[str, PartMeter] = field(default_factory=dict)
    workers: int = 1
    engine: str = "local"
    version: str | None = None

    def part(self, name: str) -> PartMeter:
        """The figures of a part, to be added to."""
        return self.parts.setdefault(name, PartMeter())

    @property
    def tokens(self) -> int:
        """Tokens of all parts."""
        return sum(part.tokens for part in self.parts.values())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ShardMeter":
        """A meter from plain data."""
        parts = {name: PartMeter(**part) for name, part in data["parts"].items()}
        return cls(parts, data["workers"], data["engine"], data.get("version"))


class ScoredShard(NamedTuple):
    """What a scorer makes of a shard's rows.

    Attributes:
        table: The narrow columns, n rows: float64 each, and ``im_unscorable`` as text.
        vectors: Column of an indicator that compares rows → vectors of the shard's *scorable* rows, in row order:
            shape (scorable rows, width), float32 or float16.
        meter: What the work came to.
    """

    table: pa.Table
    vectors: dict[str, NDArray[Any]]
    meter: ShardMeter


class WholeColumn(NamedTuple):
    """A column that only all rows together could give.

    Attributes:
        values: Shape (rows,), float64.
        facts: How it came about, as plain data.
    """

    values: NDArray[np.float64]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Shards:
    """The shards of a run; plain data, so that any process or machine that sees the folder can write one.

    Attributes:
        folder: Where they lie.
        digest: Of the request: what the values depend on.
        rows: Rows of the run.
        shard_rows: Rows of every shard but the last.
    """

    folder: Path
    digest: str
    rows: int
    shard_rows: int = SHARD_ROWS

    def __len__(self) -> int:
        return -(-self.rows // self.shard_rows)

    def span(self, shard: int) -> range:
        """The rows of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))

    def table_path(self, shard: int) -> Path:
        """The file whose being there says that the shard is finished."""
        return self.folder / f"shard-{shard:06d}.parquet"

    def vectors_path(self, shard: int, column: str) -> Path:
        """The vectors that an indicator needs of a shard."""
        return self.folder / f"shard-{shard:06d}-{column}.npy"

    def missing(self) -> list[int]:
        """The shards that are to be computed; unreadable and foreign files count as not there.

        Every file is read whole once, against its checksums: after a crash of the machine it may be torn.
        """
        return [shard for shard in range(len(self)) if not self._is_finished(shard)]

    def write(self, shard: int, scored: ScoredShard) -> None:
        """Put a shard in its place, whole.

        Raises:
            OutputError: The folder cannot be written, as when the disk is full; nothing of the shard is left then.
        """
        if scored.table.num_rows != len(self.span(shard)):
            raise OutputError(f"shard {shard} has {scored.table.num_rows} rows, not {len(self.span(shard))}")
        sums = {}
        for column, vectors in scored.vectors.items():
            sums[column] = _checksum(vectors)
            self.put(self.vectors_path(shard, column), partial(_save, array=vectors))
        facts = {
            "digest": self.digest,
            "shard": shard,
            "meter": asdict(scored.meter),
            "vectors": sums,
            "table": _table_checksum(scored.table),
        }
        self.put(self.table_path(shard), lambda file: pq.write_table(_told(scored.table, facts), file))

    def read(self, shard: int) -> pa.Table:
        """The narrow columns of a finished shard.

        Raises:
            OutputError: It is not there, or not whole.
        """
        return self._read(shard)[0]

    def meter(self, shard: int) -> ShardMeter:
        """What a finished shard's work came to.

        Raises:
            OutputError: It is not there, or not whole.
        """
        with _readable(self.table_path(shard)):
            return ShardMeter.from_dict(_facts(pq.read_schema(self.table_path(shard)))["meter"])

    def vectors(self, column: str) -> list[Path]:
        """The files of an indicator's vectors in row order, without those of shards that have none.

        None of them stays open: a run may have more shards than files may be open.

        Raises:
            OutputError: One is not there, or not whole.
        """
        found = []
        for shard in range(len(self)):
            path = self.vectors_path(shard, column)
            with _readable(path):
                if len(np.load(path, mmap_mode="r", allow_pickle=False)):
                    found.append(path)
        return found

    def write_column(self, column: str, whole: WholeColumn) -> None:
        """Keep a column that was computed from all rows.

        Raises:
            OutputError: The folder cannot be written.
        """
        table = pa.table({column: pa.array(whole.values, type=pa.float64(), from_pandas=False)})
        facts = {"digest": self.digest, "facts": whole.facts, "table": _table_checksum(table)}
        self.put(self._column_path(column), lambda file: pq.write_table(_told(table, facts), file))

    def read_column(self, column: str) -> WholeColumn | None:
        """A column kept by ``write_column``; None where it is not there or not whole."""
        path = self._column_path(column)
        if not path.is_file():
            return None
        try:
            with _readable(path):
                table = pq.read_table(path, memory_map=False)
                facts = _facts(table.schema)
                whole = (facts["digest"], facts["table"]) == (self.digest, _table_checksum(table))
        except OutputError:
            return None
        return WholeColumn(table[column].to_numpy(), facts["facts"]) if whole else None

    def _column_path(self, column: str) -> Path:
        return self.folder / f"column-{column}.parquet"

    def put(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        """Write a file of the folder whole.

        Raises:
            OutputError: It cannot be written; nothing of it is left.
        """
        remedy = f"finished shards stay in {self.folder}: make room or mend it, and run the same again"
        with output_errors(path, remedy), written_whole(path) as aside, aside.open("xb") as file:
            write(file)

    def _is_finished(self, shard: int) -> bool:
        if not self.table_path(shard).is_file():
            return False
        try:
            _, facts = self._read(shard)
            return all(self._vectors_are_whole(shard, column, total) for column, total in facts["vectors"].items())
        except OutputError:
            return False

    def _read(self, shard: int) -> tuple[pa.Table, dict[str, Any]]:
        path = self.table_path(shard)
        with _readable(path):
            table = pq.read_table(path, memory_map=False)
            facts = _facts(table.schema)
            whole = _table_checksum(table) == facts["table"]
        if (facts["digest"], facts["shard"]) != (self.digest, shard) or table.num_rows != len(self.span(shard)):
            raise OutputError(f"{path} belongs to another run; remove it and run the same again")
        if not whole:
            raise OutputError(f"{path} is damaged; remove it and run the same again")
        return table.replace_schema_metadata(None), facts

    def _vectors_are_whole(self, shard: int, column: str, total: int) -> bool:
        with _readable(self.vectors_path(shard, column)):
            return _checksum(np.load(self.vectors_path(shard, column), mmap_mode="r", allow_pickle=False)) == total


@contextmanager
def open_shards(
    folder: str | Path,
    request: Mapping[str, Any],
    rows: int,
    *,
    shard_rows: int = SHARD_ROWS,
    resume: bool = True,
) -> Iterator[Shards]:
    """The shards of a run, locked against other runs inside the block.

    Args:
        folder: Made where missing. When the block ends without one finished shard, it is removed again.
        request: All that the values depend on, in named parts of plain data.
        rows: Rows of the run.
        shard_rows: Rows per shard.
        resume: Whether finished shards of the same request count; else they are thrown away.

    Raises:
        OutputError: Another run is at it, the folder holds something else, or it holds work of another request.
    """
    folder = Path(folder)
    asked = json.loads(json.dumps({**request, "layout": {"rows": rows, "shard_rows": shard_rows}}))
    shards = Shards(folder, _digest(asked), rows, shard_rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"another run is writing to {folder}; wait until it ends, or write to another folder"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write to {folder} ({error.strerror}); pass another folder") from error
    try:
        _settle(shards, asked, resume)
        yield shards
    finally:
        if not any(folder.glob("shard-*.parquet")) and not _is_foreign(folder):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _settle(shards: Shards, asked: dict[str, Any], resume: bool) -> None:
    """Make the folder one of this request, with nothing in it but finished shards."""
    folder = shards.folder
    if _is_foreign(folder):
        raise OutputError(f"{folder} is not empty and holds no {RUN}; pass another folder")
    if not resume or not any(folder.glob("shard-*.parquet")):
        _empty(folder)
    if (folder / RUN).is_file():
        _check_same(folder, asked)
    else:
        told = {"schema_version": RUN_SCHEMA, "digest": shards.digest, "request": asked}
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        shards.put(folder / RUN, lambda file: file.write(text.encode()))
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


def _is_foreign(folder: Path) -> bool:
    """Whether there is something in the folder that no run of ours put there."""
    return not (folder / RUN).is_file() and any(
        path.name != LOCK and path.suffix != ".part" for path in folder.iterdir()
    )


def _check_same(folder: Path, asked: dict[str, Any]) -> None:
    try:
        told = json.loads((folder / RUN).read_text(encoding="utf-8"))
        request = dict(told["request"]) if told["schema_version"] == RUN_SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / RUN} cannot be read ({error}); pass --no-resume (resume=False) to throw the unfinished work "
            "away"
        ) from error
    if request != asked:
        differing = [name for name in asked | request if request.get(name) != asked.get(name)]
        raise OutputError(
            f"{folder} holds unfinished work of another request (differing in: {', '.join(differing)}); ask the same "
            "again to go on with it, pass --no-resume (resume=False) to throw it away, or another folder"
        )


def _empty(folder: Path) -> None:
    for pattern in (RUN, "shard-*", "column-*", SCORES, ".*.part"):
        for path in folder.glob(pattern):
            path.unlink()


def _digest(asked: Mapping[str, Any]) -> str:
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    np.save(file, array, allow_pickle=False)


def _told(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """A table that carries some facts and their checksum."""
    told = json.dumps(facts).encode()
    return table.replace_schema_metadata({_FACTS: told, _SUM: str(zlib.crc32(told)).encode()})


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


def _checksum(array: NDArray[Any]) -> int:
    """CRC-32 of an array's shape and bytes."""
    shape = zlib.crc32(repr(array.shape).encode())
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"), shape) if array.size else shape


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever reading a broken file raises, as one clear line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
        raise OutputError(f"{path} cannot be read ({error}); remove it and run the same again") from error


def partial_folder(result: Path) -> Path:
    """The folder of the unfinished work.

    Args:
        result: What the work is for; a link counts as what it leads to.

    >>> partial_folder(Path("results/mined")).name
    '.mined.partial'
    """
    place = Path(os.path.realpath(result))
    return place.with_name(f".{place.name}.partial")


def drop_partial(result: Path) -> None:
    """Remove the work that led to a result, unless another run is at it."""
    partial = partial_folder(result)
    if not partial.is_dir():
        return
    try:
        with FileLock(partial / LOCK, timeout=0):
            shutil.rmtree(partial, ignore_errors=True)
    except Timeout:
        return
