"""Candidate rows of several datasets, scored once: what subsets are drawn from and selections are made of.

Scores are kept on disk, so that nothing is scored twice, whichever process asks; texts are read when a subset is
trained on. Drawing and ranking are for others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from im_datasets.common.errors import CalibrationError
from im_datasets.common.storage import written_whole
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.data.prepare import prepare, read_texts
from im_datasets.data.source import load_source
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.score_columns import COLUMNS, UNSCORABLE
from im_datasets.indicators.settings import identity, own_settings
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LOG_LOSS, LinearRule
from im_datasets.scoring.score import score, with_description
from im_datasets.selection.contamination import EvaluationIndex

CHUNK_ROWS = 4096
"""Candidates whose texts are in memory at a time."""

PoolRows = NDArray[np.int64]
"""Places in a pool, shape (n,)."""


@dataclass(frozen=True, eq=False)
class Origin:
    """One dataset of a pool.

    Attributes:
        name: What it is called in tables.
        dataset: Its rows.
        columns: How to read them.
        identity: What tells it from another version of itself.
    """

    name: str
    dataset: Dataset
    columns: Columns
    identity: str


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows that may be trained on, every indicator known of each.

    Attributes:
        origins: The datasets.
        origin: Which of them each candidate is from, shape (n,).
        row: Its row there, shape (n,).
        scores: Indicator column → n finite floats.
        indicators: Indicator class → settings, as a rule holds them.
        left_out: Dataset → reason → rows that are no candidates.
    """

    origins: tuple[Origin, ...]
    origin: PoolRows
    row: PoolRows
    scores: Mapping[str, NDArray[np.float64]]
    indicators: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, Mapping[str, int]]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def names(self) -> tuple[str, ...]:
        """What its datasets are called."""
        return tuple(origin.name for origin in self.origins)

    def pairs(self, rows: PoolRows) -> Pairs:
        """The texts of some candidates, in their order."""
        contexts: list[Any] = [()] * len(rows)
        responses = [""] * len(rows)
        for number, origin in enumerate(self.origins):
            places = np.flatnonzero(self.origin[rows] == number)
            texts = read_texts(origin.dataset, origin.columns)
            pairs = origin.columns.pairs(texts.select(self.row[rows[places]])[:])
            for place, context, response in zip(places.tolist(), pairs.contexts, pairs.responses, strict=True):
                contexts[place], responses[place] = context, response
        return Pairs(contexts, responses, [""] * len(rows))

    def means(self, rows: PoolRows) -> dict[str, float]:
        """Mean of each indicator over some candidates."""
        return {name: float(values[rows].mean()) for name, values in self.scores.items()}

    def composition(self, rows: PoolRows) -> dict[str, int]:
        """Rows of each dataset among some candidates."""
        counts = np.bincount(self.origin[rows], minlength=len(self.origins))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def ranked(self, rule: LinearRule) -> PoolRows:
        """All candidates, the lowest predicted log loss first, ties in row order.

        Raises:
            RuleError: The pool lacks a column of the rule.
        """
        return np.argsort(rule.predict(self.scores), kind="stable")

    def digest(self, rows: PoolRows) -> str:
        """What tells these rows, in this order, from any others."""
        identities = [[origin.identity, origin.columns.mapping] for origin in self.origins]
        digest = sha256(json.dumps(identities).encode())
        # Little-endian whatever the machine's order: ids of runs are compared between machines.
        digest.update(np.stack([self.origin[rows], self.row[rows]]).astype("<i8").tobytes())
        return digest.hexdigest()

    def without(self, evaluation: Sequence[str]) -> Self:
        """A pool without the candidates that repeat an instruction of an evaluation set.

        Args:
            evaluation: Instructions; with none, nothing is left out.
        """
        if not evaluation:
            return self
        index = EvaluationIndex.build(evaluation)
        clean = np.ones(len(self), dtype=bool)
        for start in range(0, len(self), CHUNK_ROWS):
            places = np.arange(start, min(start + CHUNK_ROWS, len(self)))
            clean[places] = [not index.is_repeated_by(text) for text in self.pairs(places).instructions]
        repeats = np.bincount(self.origin[~clean], minlength=len(self.origins)).tolist()
        left_out = {
            name: {**self.left_out[name], **({"contaminated": count} if count else {})}
            for name, count in zip(self.names, repeats, strict=True)
        }
        scores = {name: values[clean] for name, values in self.scores.items()}
        return replace(self, origin=self.origin[clean], row=self.row[clean], scores=scores, left_out=left_out)


def random_rows(pool: Pool, size: int, seed: int) -> PoolRows:
    """Candidates drawn alike; a smaller draw of the same seed is part of a larger one."""
    return np.random.default_rng([seed, 1]).permutation(len(pool))[:size]


def make_pool(
    scored: Mapping[str, Dataset],
    columns: Mapping[str, Columns] | None = None,
    indicators: Mapping[str, Mapping[str, Any]] | None = None,
    identities: Mapping[str, str] | None = None,
) -> Pool:
    """A pool of datasets that were scored already.

    Args:
        scored: Name → dataset with the same indicator columns as the others.
        columns: Name → how to read it; None finds instruction and response by the names of the columns.
        indicators: Indicator class → settings, for the table of runs.
        identities: Name → what tells its version from another; None takes the dataset's fingerprint.

    Raises:
        CalibrationError: No dataset, no common indicator column, or no row with all of them.
        ColumnsError: Instruction and response cannot be told.
    """
    if not scored:
        raise CalibrationError("no candidate dataset; pass at least one")
    origins = [
        Origin(
            name,
            dataset,
            (columns or {}).get(name) or Columns.detect(dataset.column_names),
            (identities or {}).get(name) or str(dataset._fingerprint),
        )
        for name, dataset in scored.items()
    ]
    shared = set.intersection(*(set(dataset.column_names) for dataset in scored.values()))
    # A predicted loss is a rule's word, not an indicator that a rule could be fitted on.
    names = sorted(name for name in shared if name in COLUMNS and name != LOG_LOSS)
    if not names:
        raise CalibrationError(f"no indicator column that all of {', '.join(scored)} have; score them first")
    tables = [_finite(origin.dataset, names) for origin in origins]
    left_out = {origin.name: reasons for origin, (_, _, reasons) in zip(origins, tables, strict=True)}
    pool = Pool(
        tuple(origins),
        np.concatenate([np.full(len(rows), place, dtype=np.int64) for place, (rows, _, _) in enumerate(tables)]),
        np.concatenate([rows for rows, _, _ in tables]),
        {name: np.concatenate([table[name] for _, table, _ in tables]) for name in names},
        indicators or {},
        left_out,
    )
    if not len(pool):
        raise CalibrationError(f"no row of {', '.join(scored)} has a value of every indicator: {left_out}")
    return pool


def _finite(dataset: Dataset, names: Sequence[str]) -> tuple[PoolRows, dict[str, NDArray[np.float64]], dict[str, int]]:
    """The rows that every indicator could score, their values, and why the others are left out."""
    columns = {name: np.asarray(dataset.with_format("numpy")[name][:], dtype=np.float64) for name in names}
    reasons = dataset[UNSCORABLE][:] if UNSCORABLE in dataset.column_names else [""] * len(dataset)
    good = np.array([not reason for reason in reasons], dtype=bool)
    left_out = {reason: list(reasons).count(reason) for reason in sorted({r for r in reasons if r})}
    for name, values in columns.items():
        bad = good & ~np.isfinite(values)
        if count := int(bad.sum()):
            left_out[f"no {name}"] = count
        good &= ~bad
    return np.flatnonzero(good), {name: values[good] for name, values in columns.items()}, left_out


def load_pool(
    data: Sequence[str],
    folder: str | Path,
    *,
    rule: LinearRule | str | Path = "embedded",
    indicators: Sequence[Indicator] = (),
    limit: int | None = None,
    progress: bool = True,
) -> Pool:
    """Read and score datasets, or take their scores from the folder where an earlier call left them.

    Args:
        data: Each a file, folder or Hub id, as ``mine`` reads it, or ``NAME=DATA``.
        folder: Where scores are kept, without the texts.
        rule: Whose indicators are computed, beside lengths, MTLD, similarity and neighbour distance.
        indicators: Indicators with settings of your own, taken instead of the rule's default ones or beside them.
        limit: Rows read of each dataset at most, a seeded sample of it.
        progress: Whether a progress bar is shown.

    Raises:
        CalibrationError: Two datasets have one name, or none has a row that can be scored.
        SourceError: A dataset cannot be found or read.
        ColumnsError: Instruction and response cannot be told from the column names.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
    """
    scored: dict[str, Dataset] = {}
    mappings: dict[str, Columns] = {}
    identities: dict[str, str] = {}
    mining = InstructMining(rule, indicators=with_description(rule, indicators))
    indicator_identities = [identity(indicator) for indicator in mining.indicators]
    for name, place in named_sources(data).items():
        # A limited sample is seeded, so that every process draws the same rows.
        source = load_source(place, limit=limit, seed=None if limit is None else 0)
        dataset, mappings[name] = prepare(source.dataset)
        # All that scores depend on, the package's version among it: another one may compute them otherwise.
        parts = [__version__, source.info, mappings[name].to_dict(), mining.rule.to_dict(), indicator_identities]
        identities[name] = sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        table = Path(folder) / "scores" / f"{identities[name][:16]}.parquet"
        scored[name] = _scored(dataset, mappings[name], table, mining, progress)
    # The user's own come first, and count where there are two of a class.
    settings = {type(i).__name__: own_settings(i) for i in reversed(mining.indicators)}
    return make_pool(scored, mappings, settings, identities)


def named_sources(data: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=DATA`` or plain ``DATA``, which is called by the last part of its path.

    Raises:
        CalibrationError: Two are called the same.

    Example:
        >>> named_sources(["data/alpaca.json", "mine=data/rows.jsonl"])
        {'alpaca': 'data/alpaca.json', 'mine': 'data/rows.jsonl'}
    """
    sources: dict[str, str] = {}
    for text in data:
        name, sign, place = text.partition("=")
        if not sign or Path(text).exists():
            name, place = Path(text).stem, text
        if not name or name in sources:
            raise CalibrationError(f"{text!r}: two datasets called {name!r}; give them names as NAME=DATA")
        sources[name] = place
    return sources


def _scored(dataset: Dataset, columns: Columns, table: Path, mining: InstructMining, progress: bool) -> Dataset:
    """The dataset with its scores, computed by one process, read by the others."""
    from filelock import FileLock
    from pyarrow.parquet import read_table, write_table

    table.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(table.with_suffix(".lock")):
        if not table.is_file():
            result = score(dataset, mining.rule, indicators=mining.indicators, columns=columns, progress=progress)
            names = [name for indicator in mining.indicators for name in indicator.writes]
            with written_whole(table) as aside:
                write_table(result.dataset.select_columns([*names, UNSCORABLE]).with_format("arrow")[:], aside)
    scores = Dataset(read_table(table))
    # A column of the dataset's own that is called as a score would come twice.
    texts = dataset.remove_columns([name for name in dataset.column_names if name in scores.column_names])
    return concatenate_datasets([texts, scores], axis=1)
