"""Dataset + rule → scored dataset + ScoringRecord.

Goes through the dataset in chunks of rows, so that never more than a chunk's texts are in memory. In each chunk
every distinct text is embedded once for all indicators, then each indicator scores the chunk. Indicators that
compare a row with all others collect vectors on the way and are solved at the end.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from numpy.typing import NDArray
from tqdm.auto import tqdm

import im_datasets
from im_datasets.batching import listening
from im_datasets.columns import Columns, Pairs
from im_datasets.embedding import Embedder
from im_datasets.errors import SourceError
from im_datasets.indicators import MTLD, KNNDistance, Length, Similarity
from im_datasets.indicators.base import UNSCORABLE, Indicator
from im_datasets.indicators.neighbours import knn_distances
from im_datasets.mining import InstructMining, finish
from im_datasets.record import IndicatorRecord, ScoringRecord
from im_datasets.resources import peak_memory_bytes
from im_datasets.rule import LinearRule

CHUNK_ROWS = 4096
"""Rows whose texts are in memory at once; enough for batches of equal length."""

_LIBRARIES = ("datasets", "transformers", "tokenizers", "torch", "numpy", "faiss-cpu")


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

    Returns:
        The scored dataset and its record.

    Raises:
        ColumnsError: Instruction and response cannot be told from the column names.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
        SourceError: The dataset has no rows.
    """
    if not len(dataset):
        raise SourceError("the dataset has no rows")
    mapping = columns or Columns.detect(dataset.column_names)
    mining = InstructMining(rule, indicators=_with_description(rule, indicators, describe), columns=mapping)
    run = _Run(mining, len(dataset))
    with _bar(len(dataset), progress) as advance:
        for start in range(0, len(dataset), CHUNK_ROWS):
            with run.clock("read"):
                rows = dataset.select(range(start, min(start + CHUNK_ROWS, len(dataset))))
                pairs = mapping.pairs(rows.select_columns([*mapping.mapping.values()])[:])
            run.score_chunk(start, pairs, advance)
    run.solve_neighbours()
    scores = run.finish()
    with run.clock("write"):
        features = Features({name: Value("string" if name == UNSCORABLE else "float64") for name in scores})
        narrow = Dataset.from_dict(scores, features=features)
        kept = dataset.remove_columns([c for c in dataset.column_names if c in scores])
        scored = concatenate_datasets([kept, narrow], axis=1)
    return Scored(scored, run.record(dataset, mapping, source), mapping)


@dataclass
class _Run:
    """What is collected while the chunks go by."""

    mining: InstructMining
    rows: int
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    truncated: Counter[Embedder] = field(default_factory=Counter)
    vectors: dict[KNNDistance, NDArray[np.float32]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for indicator in self.mining.indicators:
            for name in indicator.writes:
                self.scores[name] = np.full(self.rows, np.nan)

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Add the wall time of a block to a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def score_chunk(self, start: int, pairs: Pairs, advance: Callable[[float], None]) -> None:
        """Embed a chunk's texts once, then let every indicator score it."""
        self.reasons += pairs.reasons
        scorable = [row for row, reason in enumerate(pairs.reasons) if not reason]
        instructions = [pairs.instructions[row] for row in scorable]
        responses = [pairs.responses[row] for row in scorable]
        with (
            self.clock("embedding"),
            listening(lambda done, total: advance(start + len(pairs) * done / total)),
        ):
            self._embed(instructions, responses)
        for indicator in self.mining.indicators:
            with self.clock(type(indicator).__name__):
                if isinstance(indicator, KNNDistance):
                    self._collect(indicator, indicator.vectors(instructions, responses), len(scorable))
                    continue
                for name, values in indicator.score_pairs(pairs).items():
                    self.scores[name][start : start + len(pairs)] = values
        advance(start + len(pairs))

    def _embed(self, instructions: list[str], responses: list[str]) -> None:
        texts: dict[Embedder, dict[str, None]] = defaultdict(dict)
        for indicator in self.mining.indicators:
            if wanted := indicator.embeds(instructions, responses):
                texts[indicator.embedder].update(dict.fromkeys(wanted))  # type: ignore[attr-defined]
        for embedder, distinct in texts.items():
            self.truncated[embedder] += int(embedder.encode(list(distinct)).truncated.sum())

    def _collect(self, indicator: KNNDistance, vectors: NDArray[np.float32], fresh: int) -> None:
        """Put a chunk's vectors behind those of earlier chunks."""
        if indicator not in self.vectors:
            self.vectors[indicator] = np.empty((self.rows, vectors.shape[1]), dtype=np.float32)
        end = sum(not reason for reason in self.reasons)
        self.vectors[indicator][end - fresh : end] = vectors

    def solve_neighbours(self) -> None:
        """Distances of the whole-dataset indicators, once every row's vector is there."""
        scorable = [row for row, reason in enumerate(self.reasons) if not reason]
        for indicator, vectors in self.vectors.items():
            with self.clock(type(indicator).__name__):
                if len(scorable) > indicator.k:
                    known = vectors[: len(scorable)]
                    distances = knn_distances(known, indicator.k, indicator.metric, indicator.exact_limit)
                    self.scores[indicator.writes[0]][scorable] = distances
        self.vectors.clear()

    def finish(self) -> dict[str, list[Any]]:
        """All columns, the rule's prediction and the reasons among them."""
        with self.clock("rule"):
            columns: dict[str, list[Any]] = {name: values.tolist() for name, values in self.scores.items()}
            last = finish(self.mining.rule, columns, self.reasons)
        self.scores["im_log_loss"] = np.asarray(last["im_log_loss"])
        self.reasons = last[UNSCORABLE]
        return {**columns, **last}

    def record(self, dataset: Dataset, columns: Columns, source: dict[str, Any] | None) -> ScoringRecord:
        """The record of the run so far."""
        return ScoringRecord(
            package_version=im_datasets.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source or {"kind": "dataset", "fingerprint": dataset._fingerprint, "rows": len(dataset)},
            columns=columns.to_dict(),
            rule=self.mining.rule.to_dict(),
            indicators=[self._indicator_record(indicator) for indicator in self.mining.indicators],
            rows=self.rows,
            unscorable=dict(Counter(reason for reason in self.reasons if reason).most_common()),
            statistics={name: s for name, values in self.scores.items() if (s := _statistics(values))},
            versions={"im-datasets": im_datasets.__version__} | {name: version(name) for name in _LIBRARIES},
            seconds={part: round(seconds, 3) for part, seconds in self.seconds.items()},
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _indicator_record(self, indicator: Indicator) -> IndicatorRecord:
        embedder: Embedder | None = getattr(indicator, "embedder", None)
        scorable = sum(not reason for reason in self.reasons)
        return IndicatorRecord(
            name=type(indicator).__name__,
            version=indicator.version,
            writes=list(indicator.writes),
            settings={name: _plain(value) for name, value in indicator.settings().items()},
            model=embedder.describe() if embedder else None,
            unscored=scorable - int(min(np.isfinite(self.scores[n]).sum() for n in indicator.writes)),
            truncated=self.truncated[embedder] if embedder else 0,
            seconds=round(self.seconds.get(type(indicator).__name__, 0.0), 3),
        )


def _with_description(
    rule: LinearRule | str | Path, indicators: Sequence[Indicator], describe: bool
) -> list[Indicator]:
    """The rule's indicators, and those of ``descriptive_indicators`` whose columns nothing else writes."""
    own = list(InstructMining(rule, indicators=indicators).indicators)
    written = {name for indicator in own for name in indicator.writes}
    extra = descriptive_indicators() if describe else []
    return own + [indicator for indicator in extra if not written & set(indicator.writes)]


def _statistics(values: NDArray[np.float64]) -> dict[str, float]:
    scored = values[np.isfinite(values)]
    if not len(scored):
        return {}
    return {
        "count": len(scored),
        "mean": float(scored.mean()),
        "std": float(scored.std()),
        "min": float(scored.min()),
        "median": float(np.median(scored)),
        "max": float(scored.max()),
    }


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


@contextmanager
def _bar(rows: int, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar over rows that also moves within a chunk, by whole rows and never backwards."""
    with tqdm(total=rows, desc="Scoring", unit=" rows", disable=not shown) as bar:

        def advance(reached: float) -> None:
            bar.update(max(0, int(reached) - bar.n))

        yield advance
