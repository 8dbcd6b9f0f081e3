"""The whole flow, in one call or in two: source → score → select → a folder with data, card, record and report.

Everything is written into a folder aside that takes its name at the very end, so that a run either leaves a
complete folder or none. A second call with the same request finds the folder and repeats nothing.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from datasets import Dataset
from datasets.fingerprint import Hasher

from im_datasets.common.errors import OutputError, SelectionError
from im_datasets.common.storage import check_writable, output_errors, written_whole
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.data.prepare import prepare
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import Source, read_source
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.settings import NotRescorable, identity, rebuild_embedder, shared_embedder, weights_of
from im_datasets.indicators.target.indicator import TargetSimilarity
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store
from im_datasets.report.card_facts import as_codes, check_facts
from im_datasets.report.result_folder import (
    check_loses_nothing,
    describe_selection,
    load_result,
    missing_parts,
    write_result,
)
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.engines.base import ShardEngine
from im_datasets.scoring.progress import progress_bars
from im_datasets.scoring.record import RECORD, ScoringRecord, check_replaceable, cut_word
from im_datasets.scoring.request import RunRequest, ScoringRequest
from im_datasets.scoring.run_folder import drop_unfinished, note_result, unfinished_folder
from im_datasets.scoring.score import Scored, score
from im_datasets.scoring.scored_files import check_place, finished_scores, read_scored, refuse_another, write_scored
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.select import Selection, select_rows
from im_datasets.selection.targets import target_similarity


@dataclass(frozen=True)
class Mined:
    """What a run left.

    Attributes:
        folder: Where it lies.
        record: The ScoringRecord, with the selection's part.
        selection: Both sides of the selection.
        repeated: Whether the folder was there already and nothing had to be done.
    """

    folder: Path
    record: ScoringRecord
    selection: Selection
    repeated: bool


@dataclass(frozen=True)
class ScoredFiles:
    """What ``score_files`` left.

    Attributes:
        path: The file or folder.
        record: Its ScoringRecord.
        repeated: Whether it was there already and nothing had to be done.
    """

    path: Path
    record: ScoringRecord
    repeated: bool


def mine(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    rule: LinearRule | str | Path = "embedded",
    top_k: int | None = None,
    fraction: float | None = None,
    threshold: float | None = None,
    per_group: tuple[str, int] | None = None,
    near_duplicates: float | None = None,
    exclude_contaminated: Sequence[str] | None = None,
    targets: Any = None,
    target_model: str | None = None,
    indicators: Sequence[Indicator] = (),
    columns: Columns | None = None,
    every_turn: bool = False,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    progress: bool = True,
    cache: bool = True,
    resume: bool = True,
    workers: int = 1,
    engine: ShardEngine | None = None,
    log: str | Path | IO[str] | None = None,
) -> Mined:
    """Score a dataset, keep the best rows, and write a folder that explains itself.

    Work that is not finished lies in ``.<name of out>.partial`` beside ``out``; the next call that scores the same
    goes on with it, and it is removed when the result stands.

    Args:
        data: A JSON, JSONL, CSV or Parquet file, a glob or folder of them, a folder saved by `datasets`, the id
            of a Hub dataset, or a Dataset.
        out: The folder to write: ``kept.parquet``, ``dropped.parquet``, ``README.md``, ``record.json``,
            ``report.html`` and ``figures/``.
        rule: A shipped rule's name, the path of a rule's JSON, or a LinearRule.
        top_k: Rows to keep; exactly one of top_k, fraction and threshold.
        fraction: Share of the scorable rows to keep, 0..1.
        threshold: Keep rows with a log loss of at most this.
        per_group: (column, quota): at most that many kept rows per value of the column.
        near_duplicates: Cosine at or above which the worse of two rows is dropped.
        exclude_contaminated: Evaluation texts; rows that share most of one's 8-grams are dropped.
        targets: Examples of a job; rows are taken by turns, each target's nearest first: see ``select``. Nearness is
            scored too, as ``im_target_similarity``.
        target_model: Causal language model that tells nearness to the targets; None is the sentence encoder.
        indicators: Indicators with settings of your own, taken instead of the rule's default ones.
        columns: Where instruction and response stand; None finds them by the names of the columns.
        every_turn: Whether each assistant turn is a row of its own; else only the last one is scored.
        config: Config of a Hub dataset.
        split: Split of a Hub dataset or of a saved DatasetDict.
        revision: Branch, tag or commit of a Hub dataset.
        streaming: Whether a Hub dataset is streamed rather than downloaded whole.
        limit: Rows to read at most.
        seed: Recorded with the selection.
        overwrite: Whether an older result in ``out`` may be replaced.
        license: Licence of the rows, for the card; left out when None.
        language: Language code or codes of the rows, for the card; left out when None.
        command: The command line that repeats the run, for record and card.
        progress: Whether progress is shown on standard error.
        cache: Whether model outputs are kept in the store between runs, and taken from it.
        resume: Whether unfinished work is gone on with; else it is thrown away.
        workers: Processes that score side by side; see ``score``.
        engine: Who computes the shards, instead of ``workers`` on this machine.
        log: A file (or ``"-"``, standard error) that gets a JSON line per event; see ``progress``.

    Returns:
        The folder, the record and the selection.

    Raises:
        SourceError: The data cannot be found or read.
        ColumnsError: Instruction and response cannot be told from the column names.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
        SelectionError: The selection cannot be met.
        OutputError: ``out`` cannot be written, or holds something that this call may not replace; another run is at
            it, or the unfinished work beside it is of another request.
        HubError: The Hub knows no such licence or language.
        IndicatorError: An indicator broke on a row; the message names it.
    """
    source = SourceRequest(data, config, split, revision, streaming, limit)
    scoring = ScoringRequest(source, rule, indicators, columns, every_turn)
    sizes = (top_k, fraction, threshold)
    selection = SelectionRequest(
        *sizes, per_group, near_duplicates, exclude_contaminated, seed, targets=targets, target_model=target_model
    )
    run = RunRequest(overwrite, command, progress, cache, resume, workers, engine, log)
    return mine_files(scoring, out, selection, license=license, language=language, run=run)


def mine_files(
    scoring: ScoringRequest,
    out: str | Path,
    selection: SelectionRequest,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    run: RunRequest,
) -> Mined:
    """What ``mine`` does, asked by requests.

    Raises:
        ImDatasetsError: As ``mine``.
    """
    folder = Path(out)
    _check_result(folder, license, language, overwrite=run.overwrite)
    with _surroundings(run):
        # Near-duplicates are told by the encoder of the indicators that were passed, not by that of the rule's own.
        embedder = shared_embedder(scoring.indicators)
        scoring, selection = _with_targets(scoring, selection, embedder)
        rows = _read(scoring)
        selection.check_enough(len(rows.dataset))
        weights = None if selection.near_duplicates is None else embedder.weights()
        request = rows.digest(_plain(selection), weights, license or None, as_codes(language))
        if (result := _finished(folder, request, overwrite=run.overwrite)) is not None:
            drop_unfinished(folder, request)
            return _handed_over(result, rows.source)
        scored = rows.score(unfinished_folder(folder), request, run)
        note_result(folder, request)
        mined = _select(scored, folder, selection, embedder, license, language)
        drop_unfinished(folder, request)
        # Rows mapped from the unfinished work would be gone for whoever opens them again, as the workers of map do.
        sides, unfinished = (mined.selection.kept, mined.selection.dropped), unfinished_folder(folder)
        is_mapped = any(unfinished in Path(file["filename"]).parents for side in sides for file in side.cache_files)
        return _handed_over(replace(mined, selection=load_result(folder)) if is_mapped else mined, rows.source)


def _handed_over(mined: Mined, source: Source) -> Mined:
    """With what the user gave whole, so that files in it may be published where rows name them."""
    return replace(mined, selection=replace(mined.selection, media_from=source.media_from))


def score_files(scoring: ScoringRequest, out: str | Path, run: RunRequest) -> ScoredFiles:
    """Score a dataset and write all rows with their scores as Parquet, the record beside them.

    ``out`` is a folder, for shards and ``record.json``, or a name that ends in ``.parquet``, for one file and
    ``<name>.record.json``.

    Raises:
        ImDatasetsError: As ``mine``.
    """
    out = Path(out)
    check_place(out, overwrite=run.overwrite)
    with _surroundings(run):
        rows = _read(scoring)
        request = rows.digest()
        if (record := finished_scores(out, request, overwrite=run.overwrite)) is not None:
            drop_unfinished(out, request)
            return ScoredFiles(out, record, repeated=True)
        scored = rows.score(unfinished_folder(out), request, run)
        note_result(out, request)
        write_scored(scored.dataset, scored.record, out)
        drop_unfinished(out, request)
    return ScoredFiles(out, scored.record, repeated=False)


def select_files(
    scored: str | Path,
    out: str | Path,
    selection: SelectionRequest,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    run: RunRequest,
) -> Mined:
    """Select from the file or folder that ``score_files`` wrote; leaves the same folder as ``mine_files``.

    The record tells the command of the run after that of the scoring. ``out``, ``license`` and
    ``language`` are as ``mine`` takes them.

    Raises:
        OutputError: ``scored`` is no scored dataset, or ``out`` holds something that may not be replaced.
        HubError: The Hub knows no such licence or language.
        SelectionError: The selection cannot be met, or near-duplicates would need an embedder that cannot be had here.
    """
    folder = Path(out)
    _check_result(folder, license, language, overwrite=run.overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        refuse_another(folder, run.overwrite)
        check_loses_nothing(folder)
    with progress_bars(run.progress):
        rows = read_scored(scored)
        needs_embedder = selection.near_duplicates is not None or selection.targets is not None
        embedder = _scoring_embedder(rows.record) if needs_embedder else None
        record = replace(rows.record, command=_join_commands(rows.record.command, run.command))
        return _select(replace(rows, record=record), folder, selection, embedder, license, language)


def _with_targets(
    scoring: ScoringRequest, selection: SelectionRequest, embedder: Embedder
) -> tuple[ScoringRequest, SelectionRequest]:
    """The same with the targets read, and with nearness to them among what is scored."""
    similarity = target_similarity(selection, embedder)
    if similarity is None:
        return scoring, selection
    is_scored = any(set(similarity.writes) & set(each.writes) for each in scoring.indicators)
    indicators = scoring.indicators if is_scored else [*scoring.indicators, similarity]
    return replace(scoring, indicators=indicators), replace(selection, targets=similarity, target_model=None)


def _plain(selection: SelectionRequest) -> dict[str, Any]:
    """A request as plain data, its targets by all that nearness to them depends on."""
    similarity = selection.targets
    targets = [identity(similarity), similarity.targets.sha256] if isinstance(similarity, TargetSimilarity) else None
    return {**asdict(replace(selection, targets=None)), "targets": targets}


@contextmanager
def _surroundings(run: RunRequest) -> Iterator[None]:
    with progress_bars(run.progress), nullcontext() if run.cache else using_store(None):
        yield


def _check_result(folder: Path, license: str | None, language: str | Sequence[str] | None, *, overwrite: bool) -> None:
    """Refuse, before anything is read, what could not be written in the end."""
    check_facts(license, language)
    check_writable(folder)
    check_replaceable(folder, overwrite=overwrite)


@dataclass(frozen=True)
class _RowsToScore:
    """What a request for scores came to, once its rows are read.

    Attributes:
        dataset: The rows as they are scored: those of the source, or one for each of its turns.
        seconds: What reading them took.
    """

    source: Source
    dataset: Dataset
    columns: Columns
    rule: LinearRule
    indicators: Sequence[Indicator]
    seconds: float

    def digest(self, *terms: Any) -> str:
        """Digest of all that a result depends on, ``terms`` among it as plain data; the same however it was asked."""
        info = self.source.info
        if info["kind"] != "hub" and "id" in info:
            # A file is known by its contents; it may be named from another folder the next time.
            info = {**info, "id": Path(info["id"]).name}
        used = InstructMining(self.rule, indicators=self.indicators).indicators
        # The settings by their hash: of a function of the user's own they tell only the name.
        settings = [[type(each).__name__, *each.writes, Hasher.hash(each), weights_of(each)] for each in used]
        request = [__version__, info, self.columns.to_dict(), self.rule.to_dict(), settings, *terms]
        return sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def score(self, folder: Path, request: str, run: RunRequest) -> Scored:
        """The scored rows, mapped from the folder of the unfinished work."""
        scored = score(
            self.dataset,
            self.rule,
            indicators=self.indicators,
            columns=self.columns,
            source=self.source.info,
            progress=run.progress,
            folder=folder,
            resume=run.resume,
            workers=run.workers,
            engine=run.engine,
            # Turns are rows of their own, which no file of the source holds.
            files=self.source.parquet if self.dataset is self.source.dataset else (),
            log=run.log,
        )
        seconds = {"load": round(self.seconds, 3), **scored.record.seconds}
        command = list(run.command) if run.command else None
        return replace(scored, record=replace(scored.record, request=request, command=command, seconds=seconds))


def _read(scoring: ScoringRequest) -> _RowsToScore:
    # The rule first: it fails at once, while a source may take long to read.
    rule = scoring.rule if isinstance(scoring.rule, LinearRule) else LinearRule.load(scoring.rule)
    clock = perf_counter()
    source = read_source(scoring.source)
    dataset, columns = prepare(source.dataset, scoring.columns, every_turn=scoring.every_turn)
    return _RowsToScore(source, dataset, columns, rule, scoring.indicators, perf_counter() - clock)


def _select(
    scored: Scored,
    folder: Path,
    request: SelectionRequest,
    embedder: Embedder | None,
    license: str | None,
    language: str | Sequence[str] | None,
) -> Mined:
    """Select from scored rows and write the folder."""
    clock = perf_counter()
    selection = select_rows(scored.dataset, request, columns=scored.columns, embedder=embedder)
    seconds = {**scored.record.seconds, "select": round(perf_counter() - clock, 3)}
    record = replace(scored.record, selection=describe_selection(selection), seconds=seconds)
    with output_errors(folder), written_whole(folder) as aside:
        aside.mkdir()
        record = write_result(aside, selection, record, license, language)
    return Mined(folder, record, replace(selection, record=record), repeated=False)


def _finished(folder: Path, request: str, *, overwrite: bool) -> Mined | None:
    """The result of the same request, where it lies in the folder whole; None where a new one may be written.

    Raises:
        OutputError: There is another result, or a damaged one, and it may not be replaced.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    try:
        record = ScoringRecord.load(folder / RECORD)
        same, missing = record.request == request and record.selection is not None, missing_parts(folder)
        if same and not missing:
            return Mined(folder, record, load_result(folder), repeated=True)
        what = f"this very result, damaged: {', '.join(missing)} is missing" if same else "another result"
    except OutputError as error:
        what = f"a damaged result ({error})"
    if not overwrite:
        raise OutputError(f"{folder} holds {what}; pass --overwrite (overwrite=True) to replace it, or another folder")
    check_loses_nothing(folder)
    return None


def _join_commands(scoring: Sequence[str] | None, selecting: Sequence[str] | None) -> list[str] | None:
    """One command line that scores and then selects; None where one of the two was called from Python.

    Paths are cut to their last part here, word by word: within a script, nothing that publishes it would find them.

    >>> _join_commands(["im-datasets", "score", "rows.jsonl"], ["im-datasets", "select", "/home/me/my scores"])
    ['sh', '-c', "im-datasets score rows.jsonl && im-datasets select 'my scores'"]
    """
    if not (scoring and selecting):
        return None
    return ["sh", "-c", " && ".join(shlex.join(map(cut_word, words)) for words in (scoring, selecting))]


def _scoring_embedder(record: ScoringRecord) -> Embedder:
    """The sentence encoder that the rows were scored with; the default one where no indicator had any.

    Raises:
        SelectionError: The record names one that cannot be made again here.
    """
    for indicator in record.indicators:
        stated = indicator.settings.get("embedder")
        if isinstance(stated, dict) and stated.get("kind") == "causal":
            continue
        try:
            embedder = rebuild_embedder(indicator)
        except NotRescorable as error:
            raise SelectionError(
                "near-duplicates and targets are told by the embedder that the rows were scored with, and that of "
                f"{indicator.name} cannot be had here: {error}; select in Python with select(…, embedder=…), or "
                "without near-duplicates and targets"
            ) from error
        if embedder is not None:
            return embedder
    return Embedder()
