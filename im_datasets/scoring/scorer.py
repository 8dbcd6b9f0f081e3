"""A shard's rows → its scores: the one object that every engine calls, in whatever process it runs.

Holds settings only and loads models where it is called, so that it can be sent to another process or machine. Rows
come as an Arrow table, so that nothing but bytes has to travel. Where shards come from and go to, engines say.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from im_datasets.common.version import __version__
from im_datasets.data.arrow import undecoded
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.model import compute_together, first_visitors
from im_datasets.indicators.score_columns import UNSCORABLE
from im_datasets.indicators.settings import compares_rows, embedder_of
from im_datasets.models.embedder import Embedder
from im_datasets.models.inference import sharing_values
from im_datasets.models.meter import Meter, metering
from im_datasets.scoring.culprit import naming_the_row
from im_datasets.scoring.shards import ScoredShard, ShardMeter

CHUNK_ROWS = 4096
"""Rows whose texts are in memory at once; enough for batches of equal length."""

_LIBRARIES = ("datasets", "transformers", "tokenizers", "torch", "numpy", "faiss-cpu", "pynndescent")

Listener = Callable[[int, int], object]
"""Told how many of the shard's rows are done, and how many tokens went through models so far."""


def library_versions() -> dict[str, str]:
    """The versions of this package and of the libraries that values depend on, those of them that are installed."""
    versions = {"im-datasets": __version__}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # pynndescent comes with an extra
            versions[name] = version(name)
    return versions


@dataclass(frozen=True)
class ShardScorer:
    """Scores the rows of a shard by all indicators.

    In each chunk of rows every distinct text is embedded once for all indicators, then each indicator scores the
    chunk. Indicators that compare rows give the chunk's vectors instead of values.

    Attributes:
        indicators: What is computed.
        columns: Where instruction and response stand.
        vector_types: Column of an indicator that compares rows → ``float32`` or ``float16``, as its vectors are kept.
        chunk_rows: Rows whose texts are in memory at once.
    """

    indicators: tuple[Indicator, ...]
    columns: Columns
    vector_types: Mapping[str, str] = field(default_factory=dict)
    chunk_rows: int = CHUNK_ROWS

    @property
    def reads(self) -> list[str]:
        """The columns of the dataset that a call needs."""
        return list(dict.fromkeys(self.columns.mapping.values()))

    @property
    def embedders(self) -> list[Embedder]:
        """The distinct sentence encoders, in the order of the indicators."""
        return list(dict.fromkeys(embedder for i in self.indicators if (embedder := embedder_of(i))))

    def __call__(self, rows: pa.Table, start: int, listener: Listener | None = None) -> ScoredShard:
        """Score some rows.

        Args:
            rows: The columns ``reads``, with the schema of their `datasets` features.
            start: Number of the first row in the whole dataset, for messages.
            listener: Called as the work goes on.

        Returns:
            The values, vectors and meter.

        Raises:
            IndicatorError: An indicator broke on a row, or on a text too long for the memory; the message names it.
            ImDatasetsError: An indicator refused the rows or its settings.
        """
        work = _Work(self, start, rows.num_rows, listener)
        # Messages may hold images: what is stored of them is all that is looked at.
        dataset = undecoded(Dataset(rows))
        for first in range(0, rows.num_rows, self.chunk_rows):
            with work.clock("read"):
                pairs = self.columns.pairs(dataset[first : first + self.chunk_rows])
            work.score_chunk(first, pairs)
        return work.finished()


class _Work:
    """What is collected while a shard's chunks go by."""

    def __init__(self, scorer: ShardScorer, start: int, rows: int, listener: Listener | None) -> None:
        self.scorer, self.start = scorer, start
        self.meter = ShardMeter()
        self.values = {
            name: np.full(rows, np.nan)
            for indicator in scorer.indicators
            if not compares_rows(indicator)
            for name in indicator.writes
        }
        self.vectors: dict[str, list[NDArray[Any]]] = defaultdict(list)
        self.reasons: list[str] = []
        self.steps = _Steps(listener)

    @contextmanager
    def clock(self, part: str) -> Iterator[Meter]:
        """Add the wall time of a block to a part."""
        begin, meter = time.perf_counter(), self.meter.part(part)
        try:
            yield meter
        finally:
            meter.seconds += time.perf_counter() - begin

    def score_chunk(self, first: int, pairs: Pairs) -> None:
        """Embed a chunk's texts once, then let every indicator score it."""
        self.reasons += pairs.reasons
        indicators = self.scorer.indicators
        # The encoders' work and each model's take long; what is left takes next to nothing.
        visitors = first_visitors(indicators)
        self.steps.chunk(first, len(pairs), 1 + len(visitors))
        with self.steps.step():
            self._embed(first, pairs)
        with sharing_values():
            for indicator in indicators:
                step = self.steps.step() if any(indicator is each for each in visitors) else metering()
                with self.clock(indicator.writes[0]) as part, step as meter:
                    self._score(indicator, first, pairs)
                    part.add(meter)

    def _score(self, indicator: Indicator, first: int, pairs: Pairs) -> None:
        if compares_rows(indicator):
            name, (_, scorable) = indicator.writes[0], pairs.scorable()
            vectors = indicator.vectors(scorable.instructions, scorable.responses)
            self.vectors[name].append(vectors.astype(self.scorer.vector_types.get(name, "float32"), copy=False))
            return

        def score(some: Pairs) -> dict[str, list[float]]:
            compute_together(indicator, self.scorer.indicators, some)
            return indicator.score_pairs(some)

        with naming_the_row(type(indicator).__name__, pairs, self.start + first, score):
            for column, values in score(pairs).items():
                self.values[column][first : first + len(pairs)] = values

    def _embed(self, first: int, pairs: Pairs) -> None:
        for number, embedder in enumerate(self.scorer.embedders):
            encode = partial(self._encode, embedder)
            with self.clock(f"embedding:{number}") as part, metering(self.steps.report) as meter:
                with naming_the_row("Embedder", pairs, self.start + first, encode):
                    part.truncated += encode(pairs)
                part.add(meter)
            # The innermost meter alone counts: the step's own has seen none of them.
            self.steps.tokens += meter.tokens

    def _encode(self, embedder: Embedder, pairs: Pairs) -> int:
        """Embed the distinct texts that the indicators want from an embedder; says how many were cut."""
        _, scorable = pairs.scorable()
        texts: dict[str, None] = {}
        for indicator in self.scorer.indicators:
            if embedder_of(indicator) == embedder:
                texts.update(dict.fromkeys(indicator.embeds(scorable.instructions, scorable.responses)))
        return int(embedder.encode(list(texts)).truncated.sum()) if texts else 0

    def finished(self) -> ScoredShard:
        """The shard, once every chunk is scored."""
        columns = {name: pa.array(values, type=pa.float64(), from_pandas=False) for name, values in self.values.items()}
        reasons = pa.array(self.reasons, type=pa.string())
        vectors = {name: np.concatenate(chunks) for name, chunks in self.vectors.items()}
        return ScoredShard(pa.table({**columns, UNSCORABLE: reasons}), vectors, self.meter)


class _Steps:
    """Progress through a shard: by whole rows, within a chunk by its long steps, with the tokens so far."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._first = self._rows = self._done = self.tokens = 0
        self._count = 1

    def chunk(self, first: int, rows: int, steps: int) -> None:
        """Go on to a chunk of rows, which takes some long steps."""
        self._first, self._rows, self._count, self._done = first, rows, steps, 0

    @contextmanager
    def step(self) -> Iterator[Meter]:
        """Meter one of the chunk's long steps, and report it as it goes on."""
        with metering(self.report) as meter:
            yield meter
        self.tokens += meter.tokens
        self._done += 1
        self.report(0, 1)

    def report(self, done: int, total: int) -> None:
        """Called by the work at hand, with how much of it is done."""
        if self._listener is not None:
            reached = self._rows * (self._done + done / max(total, 1)) / self._count
            self._listener(self._first + int(reached), self.tokens)
