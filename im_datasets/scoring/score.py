"""Dataset + rule → scored dataset + ScoringRecord.

The rows are cut into shards. An engine computes those that are not in the run's folder yet; then indicators that
compare rows are solved from the vectors on disk, the rule is applied, and the scores are read from one mapped file.
Only a chunk of texts is in memory at a time, and of all rows one column of numbers.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets.fingerprint import Hasher
from numpy.typing import NDArray

from im_datasets.common.errors import SourceError
from im_datasets.common.storage import peak_memory_bytes
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.indicators import MTLD, KNNDistance, Length, Similarity
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.search import check_room
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import compares_rows, describe_model, embedder_of, shared_embedder, weights_of
from im_datasets.models.devices import choose_device
from im_datasets.models.embedder import Embedder
from im_datasets.rules.instruct_mining import InstructMining, finish
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.engines.base import Job, ShardEngine
from im_datasets.scoring.engines.local import LocalEngine
from im_datasets.scoring.progress import Progress, opened_log
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.scoring.run_folder import open_shards
from im_datasets.scoring.scorer import CHUNK_ROWS as CHUNK_ROWS
from im_datasets.scoring.scorer import ShardScorer, library_versions
from im_datasets.scoring.shards import SCORES, SHARD_ROWS, PartMeter, ShardMeter, Shards, WholeColumn
from im_datasets.scoring.statistics import describe

IN_MEMORY_BYTES = 64 * 2**20
"""Scores up to this size are read into memory; more stay a mapped file of the run's folder."""


@dataclass(frozen=True)
class Scored:
    """A scored dataset and the record of how it came about.

    Attributes:
        dataset: The rows in their order, with every indicator's columns, ``im_log_loss`` and ``im_unscorable``.
        record: The ScoringRecord.
        columns: The column mapping that was used.
    """

    dataset: Dataset
    record: ScoringRecord
    columns: Columns


def descriptive_indicators(embedder: Embedder | None = None) -> list[Indicator]:
    """Indicators that cost next to nothing beside the embedding and tell a reader what a selection looks like."""
    encoder = embedder or Embedder()
    return [Length(), MTLD(), Similarity(embedder=encoder), KNNDistance(text="both", embedder=encoder)]


def score(
    dataset: Dataset,
    rule: LinearRule | str | Path = "embedded",
    *,
    indicators: Sequence[Indicator] = (),
    describe: bool = True,
    columns: Columns | None = None,
    source: dict[str, Any] | None = None,
    progress: bool = True,
    folder: str | Path | None = None,
    resume: bool = True,
    workers: int = 1,
    engine: ShardEngine | None = None,
    files: Sequence[str] = (),
    log: str | Path | IO[str] | None = None,
) -> Scored:
    """Score every row of a dataset by a rule.

    Args:
        dataset: The rows; columns and features are left untouched.
        rule: A shipped rule's name, the path of a rule's JSON, or a LinearRule.
        indicators: Indicators with settings of your own, taken instead of the rule's default ones.
        describe: Whether lengths, MTLD, similarity and neighbour distance are computed beside the rule's own.
        columns: Where instruction and response stand; None finds them by the names of the columns.
        source: Where the dataset comes from, for the record; None records its fingerprint.
        progress: Whether a progress bar is shown on standard error.
        folder: Where finished shards lie, to be found by the next call that asks the same; the scored dataset is
            read from there. None works in a temporary folder and leaves nothing.
        resume: Whether finished shards of an earlier call that asked the same are taken; else they are thrown away.
        workers: Processes that score side by side on this machine; each loads the models, and takes a GPU of its own
            where there are several.
        engine: Who computes the shards, instead of ``workers`` on this machine.
        files: Parquet files whose rows, one after another, begin with the dataset's, for an engine whose workers may
            read them.
        log: A file (or ``"-"``, standard error) that gets a JSON line per event; see ``progress``.

    Returns:
        The scored dataset and its record.

    Raises:
        ColumnsError: Instruction and response cannot be told from the column names.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
        SourceError: The dataset has no rows.
        OutputError: The folder cannot be written, is in use, or holds work of another request; or the cache folder,
            where the vectors of many rows are searched, cannot be written.
        IndicatorError: An indicator broke on a row; the message names it.
    """
    if not len(dataset):
        raise SourceError("the dataset has no rows")
    mapping = columns or Columns.detect(dataset.column_names)
    mapping.require(dataset.column_names)
    mining = InstructMining(
        rule, indicators=with_description(rule, indicators) if describe else indicators, columns=mapping
    )
    told = source or {"kind": "dataset", "fingerprint": dataset._fingerprint, "rows": len(dataset)}
    scorer = ShardScorer(mining.indicators, mapping, _vector_types(mining.indicators, len(dataset)), CHUNK_ROWS)
    request = _request(told, mining, scorer)
    if any(compares_rows(i) and i.exact_limit < len(dataset) for i in mining.indicators):
        # Hours of scoring come before the search.
        check_room()
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(TemporaryDirectory(prefix="im_datasets-"))) / "run"
        shards = stack.enter_context(open_shards(place, request, len(dataset), shard_rows=SHARD_ROWS, resume=resume))
        missing = shards.missing()
        left = sum(len(shards.span(shard)) for shard in missing)
        watcher = Progress(shards, left, progress, stack.enter_context(opened_log(log)))
        stack.callback(watcher.close)
        watcher.noted("start", rows=shards.rows, shards=len(shards), resumed_shards=len(shards) - len(missing))
        (engine or LocalEngine(workers)).run(Job(dataset, scorer, shards, missing, files), watcher)
        rates = _rates(watcher, len(shards) - len(missing))
        run = _Run(mining, scorer, shards)
        run.solve_neighbours(watcher)
        narrow = run.assemble(in_memory=folder is None)
        watcher.noted("end", rows=shards.rows, rows_per_second=rates["rows_per_second"])
        record = run.record(narrow, told, rates)
    kept = dataset.remove_columns([name for name in dataset.column_names if name in narrow.column_names])
    return Scored(concatenate_datasets([kept, narrow], axis=1), record, mapping)


def _vector_types(indicators: Sequence[Indicator], rows: int) -> dict[str, str]:
    """Half precision where neighbours are searched approximately anyway: half the disk, half the reading."""
    return {
        indicator.writes[0]: "float32" if rows <= indicator.exact_limit else "float16"
        for indicator in indicators
        if compares_rows(indicator)
    }


def _request(source: Mapping[str, Any], mining: InstructMining, scorer: ShardScorer) -> dict[str, Any]:
    """All that the values depend on, as plain data."""
    return {
        "source": dict(source),
        "columns": mining.columns.to_dict() if mining.columns else None,
        "rule": mining.rule.to_dict(),
        "indicators": [[type(i).__name__, i.version, *i.writes, Hasher.hash(i)] for i in mining.indicators],
        "models": [weights_of(indicator) for indicator in mining.indicators],
        "devices": [choose_device(embedder.device) for embedder in scorer.embedders],
        "vectors": dict(scorer.vector_types),
        "versions": library_versions(),
    }


def _rates(progress: Progress, resumed: int) -> dict[str, float]:
    """What the shards of this attempt came to."""
    return {
        "rows_per_second": round(progress.rows_per_second, 2),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        "resumed_shards": resumed,
    }


@dataclass
class _Run:
    """What is made of all shards once they are there."""

    mining: InstructMining
    scorer: ShardScorer
    shards: Shards
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    neighbours: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    scored: Counter[str] = field(default_factory=Counter)
    unscorable: Counter[str] = field(default_factory=Counter)
    scorable: int = 0

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Add the wall time of a block to a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def solve_neighbours(self, watcher: Progress) -> None:
        """Distances of the indicators that compare rows, once every shard's vectors are there; kept in the folder."""
        for indicator in self.mining.indicators:
            if compares_rows(indicator):
                name = indicator.writes[0]
                with self.clock(name):
                    column = self.shards.read_column(name)
                    if column is None:
                        column = self._distances(indicator)
                        self.shards.write_column(name, column)
                self.neighbours[name] = column.values
                if column.facts:
                    self.searches[name] = column.facts
                watcher.noted("part", part=name, took=round(self.seconds[name], 3), **column.facts)

    def _distances(self, indicator: KNNDistance) -> WholeColumn:
        name = indicator.writes[0]
        column = np.full(self.shards.rows, np.nan)
        tables = (self.shards.read(shard) for shard in range(len(self.shards)))
        scorable = np.concatenate([pc.equal(table[UNSCORABLE], "").to_numpy() for table in tables])
        if scorable.sum() <= indicator.k:
            return WholeColumn(column, {})
        found = indicator.search(self.shards.vectors(name))
        column[scorable] = found.distances
        return WholeColumn(column, {**found.search, "vectors": self.scorer.vector_types[name]})

    def assemble(self, *, in_memory: bool) -> Dataset:
        """The narrow columns of all rows, the rule's prediction among them, in one file that is mapped."""
        names = [*(name for i in self.mining.indicators for name in i.writes), LOG_LOSS, UNSCORABLE]
        features = Features({name: Value("string" if name == UNSCORABLE else "float64") for name in names})
        with self.clock("rule"):
            self.shards.put(self.shards.folder / SCORES, lambda file: self._write(file, features.arrow_schema))
        path = self.shards.folder / SCORES
        return Dataset.from_file(str(path), in_memory=in_memory or path.stat().st_size <= IN_MEMORY_BYTES)

    def _write(self, file: IO[bytes], schema: pa.Schema) -> None:
        with pa.ipc.new_stream(file, schema) as writer:
            for shard in range(len(self.shards)):
                writer.write_table(self._finish(shard, schema))

    def _finish(self, shard: int, schema: pa.Schema) -> pa.Table:
        """A shard's columns with those that only all rows together could give."""
        table, span = self.shards.read(shard), self.shards.span(shard)
        columns: dict[str, Any] = {n: table[n].to_numpy() for n in table.column_names if n != UNSCORABLE}
        columns |= {name: values[span.start : span.stop] for name, values in self.neighbours.items()}
        reasons = table[UNSCORABLE].to_pylist()
        columns |= finish(self.mining.rule, columns, reasons)
        self.scorable += sum(not reason for reason in reasons)
        self.unscorable.update(reason for reason in columns[UNSCORABLE] if reason)
        self.scored.update({n: int(np.isfinite(v).sum()) for n, v in columns.items() if n != UNSCORABLE})
        arrays = [pa.array(columns[f.name], type=f.type, from_pandas=False) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def record(self, narrow: Dataset, source: dict[str, Any], rates: dict[str, float]) -> ScoringRecord:
        """The record of the run."""
        meters = [self.shards.meter(shard) for shard in range(len(self.shards))]
        engines = dict(Counter(meter.engine for meter in meters))
        parts = _summed(meters)
        seconds = self._seconds(parts)
        total = sum(seconds.values())
        described = {n: describe(_column(narrow, n)) for n in narrow.column_names if n != UNSCORABLE}
        return ScoringRecord(
            package_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source,
            columns=self.scorer.columns,
            rule=self.mining.rule,
            indicators=[self._indicator_record(indicator, parts, total) for indicator in self.mining.indicators],
            rows=self.shards.rows,
            unscorable=dict(self.unscorable.most_common()),
            statistics={name: figures for name, figures in described.items() if figures["count"]},
            versions=library_versions() | _engine_versions(meters),
            engines=engines,
            seconds={part: round(spent, 3) for part, spent in seconds.items()},
            peak_memory_bytes=peak_memory_bytes(),
            throughput={**rates, "workers": max(meter.workers for meter in meters), "shards": len(self.shards)},
        )

    def _seconds(self, parts: dict[str, PartMeter]) -> dict[str, float]:
        """Part of the run → seconds, indicators by their class."""
        seconds: dict[str, float] = defaultdict(float)
        seconds["read"] = parts["read"].seconds if "read" in parts else 0.0
        seconds["embedding"] = sum(part.seconds for name, part in parts.items() if name.startswith("embedding:"))
        for indicator in self.mining.indicators:
            seconds[type(indicator).__name__] += self._spent(indicator, parts)
        return {**seconds, "rule": self.seconds["rule"]}

    def _spent(self, indicator: Indicator, parts: dict[str, PartMeter]) -> float:
        name = indicator.writes[0]
        return parts.get(name, PartMeter()).seconds + self.seconds.get(name, 0.0)

    def _indicator_record(self, indicator: Indicator, parts: dict[str, PartMeter], total: float) -> IndicatorRecord:
        embedder = embedder_of(indicator)
        part = parts.get(indicator.writes[0], PartMeter())
        shared = parts[f"embedding:{self.scorer.embedders.index(embedder)}"] if embedder else part
        seconds = self._spent(indicator, parts)
        return IndicatorRecord(
            name=type(indicator).__name__,
            version=indicator.version,
            writes=list(indicator.writes),
            settings=indicator.settings(),
            model=describe_model(indicator),
            unscored=self.scorable - min(self.scored[n] for n in indicator.writes),
            truncated=shared.truncated,
            reused=part.reused,
            tokens=part.tokens,
            seconds=round(seconds, 3),
            share=round(seconds / total, 4) if total else 0.0,
            search=self.searches.get(indicator.writes[0]),
        )


def _summed(meters: Sequence[ShardMeter]) -> dict[str, PartMeter]:
    """The figures of all shards; seconds of workers that ran side by side count by their number."""
    total: dict[str, PartMeter] = defaultdict(PartMeter)
    for meter in meters:
        for name, part in meter.parts.items():
            part.seconds /= meter.workers
            total[name].add(part)
    return dict(total)


def _engine_versions(meters: Sequence[ShardMeter]) -> dict[str, str]:
    """Engine → its version, from the shards: whoever ends a run need not have what others began it with."""
    found: dict[str, set[str]] = defaultdict(set)
    for meter in meters:
        if meter.version is not None:
            found[meter.engine].add(meter.version)
    return {engine: ", ".join(sorted(versions)) for engine, versions in found.items()}


def _column(narrow: Dataset, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = narrow.data.column(name).to_numpy()
    return values


def with_description(rule: LinearRule | str | Path, indicators: Sequence[Indicator] = ()) -> list[Indicator]:
    """The rule's indicators, and those of ``descriptive_indicators`` whose columns nothing else writes.

    Both embed with the same encoder.
    """
    own = list(InstructMining(rule, indicators=indicators).indicators)
    written = {name for indicator in own for name in indicator.writes}
    described = descriptive_indicators(shared_embedder(own))
    return own + [indicator for indicator in described if not written & set(indicator.writes)]
