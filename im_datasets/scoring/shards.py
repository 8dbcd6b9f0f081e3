"""The shards of one scoring run: equal parts of its rows, each finished whole or not at all, whatever kills the run.

A finished shard is one Parquet file of narrow columns (and, for indicators that compare rows, one ``.npy`` of vectors
each beside it). Files are written aside, flushed and renamed, the Parquet file last. Knows nothing of indicators,
models or engines.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from im_datasets.common.errors import OutputError
from im_datasets.common.storage import output_errors, written_whole
from im_datasets.models.meter import Meter
from im_datasets.scoring.sealed_table import checksum, read_facts, read_sealed, readable, seal

SHARD_ROWS = 8192
"""Rows of a shard: what a killed run computes again at most, for each worker."""

SCORES = "scores.arrow"
"""The scores of all rows, made from the shards."""


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

    parts: dict[str, Meter] = field(default_factory=dict)
    workers: int = 1
    engine: str = "local"
    version: str | None = None

    def part(self, name: str) -> Meter:
        """The figures of a part, to be added to."""
        return self.parts.setdefault(name, Meter())

    @property
    def tokens(self) -> int:
        """Tokens of all parts."""
        return sum(part.tokens for part in self.parts.values())


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
        for column, vectors in scored.vectors.items():
            self.put(self.vectors_path(shard, column), partial(np.save, arr=vectors, allow_pickle=False))
        sums = {column: checksum(vectors) for column, vectors in scored.vectors.items()}
        facts = {"digest": self.digest, "shard": shard, "meter": asdict(scored.meter), "vectors": sums}
        # The last of the files: it says that the shard is finished.
        self.put(self.table_path(shard), partial(pq.write_table, seal(scored.table, facts)))

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
        meter = read_facts(self.table_path(shard))["meter"]
        return ShardMeter(**{**meter, "parts": {name: Meter(**part) for name, part in meter["parts"].items()}})

    def vectors(self, column: str) -> list[Path]:
        """The files of an indicator's vectors in row order, without those of shards that have none.

        None of them stays open: a run may have more shards than files may be open.

        Raises:
            OutputError: One is not there, or not whole.
        """
        paths = []
        for path in (self.vectors_path(shard, column) for shard in range(len(self))):
            with readable(path):
                paths += [path] if len(np.load(path, mmap_mode="r", allow_pickle=False)) else []
        return paths

    def write_column(self, column: str, whole: WholeColumn) -> None:
        """Keep a column that was computed from all rows.

        Raises:
            OutputError: The folder cannot be written.
        """
        table = pa.table({column: pa.array(whole.values, type=pa.float64(), from_pandas=False)})
        sealed = seal(table, {"digest": self.digest, "facts": whole.facts})
        self.put(self._column_path(column), partial(pq.write_table, sealed))

    def read_column(self, column: str) -> WholeColumn | None:
        """A column kept by ``write_column``; None where it is not there or not whole."""
        try:
            table, facts = read_sealed(self._column_path(column))
        except OutputError:
            return None
        return WholeColumn(table[column].to_numpy(), facts["facts"]) if facts["digest"] == self.digest else None

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
        try:
            _, facts = self._read(shard)
            for column, expected in facts["vectors"].items():
                path = self.vectors_path(shard, column)
                with readable(path):
                    if checksum(np.load(path, mmap_mode="r", allow_pickle=False)) != expected:
                        return False
        except OutputError:
            return False
        return True

    def _read(self, shard: int) -> tuple[pa.Table, dict[str, Any]]:
        path = self.table_path(shard)
        table, facts = read_sealed(path)
        if (facts["digest"], facts.get("shard")) != (self.digest, shard) or table.num_rows != len(self.span(shard)):
            raise OutputError(f"{path} belongs to another run; remove it and run the same again")
        return table, facts
