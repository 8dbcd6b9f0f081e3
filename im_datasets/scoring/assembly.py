"""Finished shards → the scores of all rows: neighbours searched among all vectors, the rule applied, one mapped file.

Of all rows one column of numbers is in memory at a time, and the vectors as far as their search needs them.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from im_datasets.indicators import KNNDistance
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import compares_rows
from im_datasets.rules.instruct_mining import InstructMining, finish
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.progress import Progress
from im_datasets.scoring.shards import SCORES, Shards, WholeColumn

IN_MEMORY_BYTES = 64 * 2**20
"""Scores up to this size are read into memory; more stay a mapped file of the run's folder."""


@dataclass
class Assembly:
    """What is made of all shards once they are there.

    Attributes:
        mining: The rule and all indicators.
        shards: Every one of them finished.
        vector_types: Column of an indicator that compares rows → type of its vectors, as the shards hold them.
        neighbours: The same column → its values, once they are solved.
        seconds: Column that was solved here, or ``rule`` → wall seconds it took.
        scorable: Rows that any indicator could score, once the scores are assembled.
    """

    mining: InstructMining
    shards: Shards
    vector_types: Mapping[str, str]
    neighbours: dict[str, WholeColumn] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    scorable: int = 0

    def solve_neighbours(self, progress: Progress) -> None:
        """Distances of the indicators that compare rows; kept in the folder."""
        for indicator in filter(compares_rows, self.mining.indicators):
            start, name = time.perf_counter(), indicator.writes[0]
            column = self.shards.read_column(name)
            if column is None:
                column = self._distances(indicator)
                self.shards.write_column(name, column)
            self.neighbours[name] = column
            self.seconds[name] = time.perf_counter() - start
            progress.noted("part", part=name, took=round(self.seconds[name], 3), **column.facts)

    def _distances(self, indicator: KNNDistance) -> WholeColumn:
        name = indicator.writes[0]
        distances = np.full(self.shards.rows, np.nan)
        tables = (self.shards.read(shard) for shard in range(len(self.shards)))
        scorable = np.concatenate([pc.equal(table[UNSCORABLE], "").to_numpy() for table in tables])
        # Where nobody has k others, nobody has a distance.
        if scorable.sum() <= indicator.k:
            return WholeColumn(distances, {})
        neighbours = indicator.search(self.shards.vectors(name))
        # Shards hold vectors of scorable rows alone.
        distances[scorable] = neighbours.distances
        return WholeColumn(distances, {**neighbours.search, "vectors": self.vector_types[name]})

    def scores(self, *, in_memory: bool) -> Dataset:
        """The narrow columns of all rows, the rule's prediction among them, in one file that is mapped."""
        start, path = time.perf_counter(), self.shards.folder / SCORES
        names = [*(name for i in self.mining.indicators for name in i.writes), LOG_LOSS, UNSCORABLE]
        features = Features({name: Value("string" if name == UNSCORABLE else "float64") for name in names})
        self.shards.put(path, lambda file: self._write(file, features.arrow_schema))
        self.seconds["rule"] = time.perf_counter() - start
        return Dataset.from_file(str(path), in_memory=in_memory or path.stat().st_size <= IN_MEMORY_BYTES)

    def _write(self, file: IO[bytes], schema: pa.Schema) -> None:
        with pa.ipc.new_stream(file, schema) as writer:
            for shard in range(len(self.shards)):
                table, span = self.shards.read(shard), self.shards.span(shard)
                columns: dict[str, Any] = {n: table[n].to_numpy() for n in table.column_names if n != UNSCORABLE}
                columns |= {name: column.values[span.start : span.stop] for name, column in self.neighbours.items()}
                reasons = table[UNSCORABLE].to_pylist()
                self.scorable += reasons.count("")
                columns |= finish(self.mining.rule, columns, reasons)
                # NaN is a value here, "could not be scored", and no null.
                arrays = [pa.array(columns[f.name], type=f.type, from_pandas=False) for f in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
