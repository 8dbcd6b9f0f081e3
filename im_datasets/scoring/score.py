"""Dataset + rule → scored dataset + ScoringRecord.

The rows are cut into shards. An engine computes those that are not in the run's folder yet; then indicators that
compare rows are solved from the vectors on disk, the rule is applied, and the scores are read from one mapped file.
Only a chunk of texts is in memory at a time, and of all rows one column of numbers.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher

from im_datasets.common.errors import SourceError
from im_datasets.common.storage import temporary_folder
from im_datasets.data.columns import Columns
from im_datasets.data.prepare import read_texts
from im_datasets.indicators import MTLD, KNNDistance, Length, Similarity
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.search import check_room
from im_datasets.indicators.settings import compares_rows, shared_embedder, weights_of
from im_datasets.models.devices import choose_device
from im_datasets.models.embedder import Embedder
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.assembly import Assembly
from im_datasets.scoring.engines.base import Job, ShardEngine
from im_datasets.scoring.engines.local import LocalEngine
from im_datasets.scoring.progress import followed
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.run_folder import open_shards
from im_datasets.scoring.run_record import make_record
from im_datasets.scoring.scorer import CHUNK_ROWS as CHUNK_ROWS
from im_datasets.scoring.scorer import ShardScorer, library_versions
from im_datasets.scoring.shards import SHARD_ROWS


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
        ColumnsError: Instruction and response cannot be told from the column names, or are no columns of text.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
        SourceError: The dataset has no rows.
        OutputError: The folder cannot be written, is in use, or holds work of another request; or the cache folder,
            where the vectors of many rows are searched, cannot be written.
        IndicatorError: An indicator broke on a row; the message names it.
    """
    if not len(dataset):
        raise SourceError("the dataset has no rows")
    mapping = columns or Columns.detect(dataset.column_names)
    read_texts(dataset, mapping)
    mining = InstructMining(
        rule, indicators=with_description(rule, indicators) if describe else indicators, columns=mapping
    )
    source = source or {"kind": "dataset", "fingerprint": dataset._fingerprint, "rows": len(dataset)}
    scorer = ShardScorer(mining.indicators, mapping, _vector_types(mining.indicators, len(dataset)), CHUNK_ROWS)
    request = _request(source, mining, scorer)
    if any(compares_rows(i) and i.exact_limit < len(dataset) for i in mining.indicators):
        # Hours of scoring come before the search.
        check_room()
    with ExitStack() as stack:
        place = folder or stack.enter_context(temporary_folder()) / "run"
        shards = stack.enter_context(open_shards(place, request, len(dataset), shard_rows=SHARD_ROWS, resume=resume))
        missing = shards.missing()
        follower = stack.enter_context(followed(shards, missing, progress, log))
        (engine or LocalEngine(workers)).run(Job(dataset, scorer, shards, missing, files), follower)
        # Taken now: what follows scores no row.
        rates = {**follower.rates, "resumed_shards": len(shards) - len(missing)}
        assembly = Assembly(mining, shards, scorer.vector_types)
        assembly.solve_neighbours(follower)
        scores = assembly.scores(in_memory=folder is None)
        follower.noted("end", rows=shards.rows, rows_per_second=rates["rows_per_second"])
        record = make_record(assembly, scorer, scores, source, rates)
    # An earlier score's columns are replaced.
    kept = dataset.remove_columns([name for name in dataset.column_names if name in scores.column_names])
    return Scored(concatenate_datasets([kept, scores], axis=1), record, mapping)


def _vector_types(indicators: Sequence[Indicator], rows: int) -> dict[str, str]:
    """Half precision where neighbours are searched approximately anyway: half the disk, half the reading."""
    return {
        indicator.writes[0]: "float32" if rows <= indicator.exact_limit else "float16"
        for indicator in indicators
        if compares_rows(indicator)
    }


def _request(source: Mapping[str, Any], mining: InstructMining, scorer: ShardScorer) -> dict[str, Any]:
    """All that the values depend on, as plain data."""
    # By a hash: the settings of a function of the user's own tell only its name.
    indicators = [[type(i).__name__, i.version, *i.writes, Hasher.hash(i)] for i in mining.indicators]
    return {
        "source": dict(source),
        "columns": mining.columns.to_dict() if mining.columns else None,
        "rule": mining.rule.to_dict(),
        "indicators": indicators,
        "models": [weights_of(indicator) for indicator in mining.indicators],
        "devices": [choose_device(embedder.device) for embedder in scorer.embedders],
        "vectors": dict(scorer.vector_types),
        "versions": library_versions(),
    }


def with_description(rule: LinearRule | str | Path, indicators: Sequence[Indicator] = ()) -> list[Indicator]:
    """The rule's indicators, and those of ``descriptive_indicators`` whose columns nothing else writes.

    Both embed with the same encoder.
    """
    own = list(InstructMining(rule, indicators=indicators).indicators)
    written = {name for indicator in own for name in indicator.writes}
    described = descriptive_indicators(shared_embedder(own))
    return own + [indicator for indicator in described if not written & set(indicator.writes)]
