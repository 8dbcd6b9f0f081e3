"""The whole flow, in one call or in two: source → score → select → a folder with data, card, record and report.

Everything is written into a folder aside that takes its name at the very end, so that a run either leaves a
complete folder or none. A second call with the same request finds the folder and repeats nothing.
"""

import json
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import IO

from datasets import Dataset

from im_datasets.common.errors import OutputError, SelectionError
from im_datasets.common.storage import check_writable, written_whole
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.data.prepare import prepare
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import read_source
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.settings import NotRescorable, rebuild_embedder, shared_embedder, weights_of
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store
from im_datasets.report.card_facts import check_facts
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
from im_datasets.scoring.score import score
from im_datasets.scoring.scored_files import (
    check_place,
    finished_scores,
    read_scored,
    refuse_another,
    write_scored,
)
from im_datasets.scoring.shards import drop_partial, partial_folder
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.select import Selection, select_rows


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
    folder, chosen = Path(out), rule if isinstance(rule, LinearRule) else LinearRule.load(rule)
    wish = SelectionRequest(
        top_k=top_k,
        fraction=fraction,
        threshold=threshold,
        per_group=per_group,
        near_duplicates=near_duplicates,
        exclude_contaminated=exclude_contaminated,
        seed=seed,
    )
    check_facts(license, language)
    check_writable(folder)
    check_replaceable(folder, overwrite=overwrite)
    with progress_bars(progress), nullcontext() if cache else using_store(None):
        clock = perf_counter()
        source = read_source(SourceRequest(data, config, split, revision, streaming, limit))
        dataset, mapping = prepare(source.dataset, columns, every_turn=every_turn)
        wish.check_enough(len(dataset))
        used = InstructMining(chosen, indicators=indicators).indicators
        models = [weights for indicator in used if (weights := weights_of(indicator)) is not None]
        asked = [
            source.info,
            mapping.to_dict(),
            chosen.to_dict(),
            repr(indicators),
            models,
            asdict(wish),
            license,
            language,
        ]
        request = sha256(json.dumps([__version__, *asked], sort_keys=True).encode()).hexdigest()
        loading = perf_counter() - clock
        if (found := _finished(folder, request, overwrite=overwrite)) is not None:
            return found
        scored = score(
            dataset,
            chosen,
            indicators=indicators,
            columns=mapping,
            source=source.info,
            progress=progress,
            folder=partial_folder(folder),
            resume=resume,
            workers=workers,
            engine=engine,
            files=source.parquet if dataset is source.dataset else (),
            log=log,
        )
        clock = perf_counter()
        selection = select_rows(scored.dataset, wish, columns=mapping, embedder=shared_embedder(indicators))
        selecting = perf_counter() - clock
        record = replace(
            scored.record,
            request=request,
            command=list(command) if command else None,
            selection=describe_selection(selection),
            seconds={"load": round(loading, 3), **scored.record.seconds, "select": round(selecting, 3)},
        )
        with written_whole(folder) as aside:
            record = write_result(aside, selection, record, license, language)
        drop_partial(folder)
        selection = _lasting(replace(selection, record=record), folder)
    return Mined(folder, record, selection, repeated=False)


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


def _lasting(selection: Selection, folder: Path) -> Selection:
    """The selection, read back from its folder where rows of it are mapped from unfinished work that is gone."""
    gone = partial_folder(folder)
    mapped = (file["filename"] for side in (selection.kept, selection.dropped) for file in side.cache_files)
    return load_result(folder) if any(gone in Path(name).parents for name in mapped) else selection


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


def score_files(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    rule: LinearRule | str | Path = "embedded",
    indicators: Sequence[Indicator] = (),
    columns: Columns | None = None,
    every_turn: bool = False,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    overwrite: bool = False,
    command: Sequence[str] | None = None,
    progress: bool = True,
    cache: bool = True,
    resume: bool = True,
    workers: int = 1,
    engine: ShardEngine | None = None,
    log: str | Path | IO[str] | None = None,
) -> ScoredFiles:
    """Score a dataset and write all rows with their scores as Parquet, the record beside them.

    Args:
        data: As ``mine`` takes it.
        out: A folder, for shards and ``record.json``; or a name that ends in ``.parquet``, for one file and
            ``<name>.record.json``.
        rule: As ``mine`` takes it; so are all the others.
        indicators: See ``mine``.
        columns: See ``mine``.
        every_turn: See ``mine``.
        config: See ``mine``.
        split: See ``mine``.
        revision: See ``mine``.
        streaming: See ``mine``.
        limit: See ``mine``.
        overwrite: Whether an older result in ``out`` may be replaced.
        command: The command line that repeats the run.
        progress: See ``mine``.
        cache: See ``mine``.
        resume: See ``mine``.
        workers: See ``mine``.
        engine: See ``mine``.
        log: See ``mine``.

    Returns:
        Where it lies, and the record.

    Raises:
        ImDatasetsError: As ``mine``.
    """
    out, chosen = Path(out), rule if isinstance(rule, LinearRule) else LinearRule.load(rule)
    check_place(out, overwrite=overwrite)
    with progress_bars(progress), nullcontext() if cache else using_store(None):
        clock = perf_counter()
        source = read_source(SourceRequest(data, config, split, revision, streaming, limit))
        dataset, mapping = prepare(source.dataset, columns, every_turn=every_turn)
        used = InstructMining(chosen, indicators=indicators).indicators
        models = [weights for indicator in used if (weights := weights_of(indicator)) is not None]
        asked = [__version__, source.info, mapping.to_dict(), chosen.to_dict(), repr(indicators), models]
        request = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        loading = perf_counter() - clock
        if (found := finished_scores(out, request, overwrite=overwrite)) is not None:
            return ScoredFiles(out, found, repeated=True)
        scored = score(
            dataset,
            chosen,
            indicators=indicators,
            columns=mapping,
            source=source.info,
            progress=progress,
            folder=partial_folder(out),
            resume=resume,
            workers=workers,
            engine=engine,
            files=source.parquet if dataset is source.dataset else (),
            log=log,
        )
        seconds = {"load": round(loading, 3), **scored.record.seconds}
        record = replace(scored.record, request=request, command=list(command) if command else None, seconds=seconds)
        write_scored(scored.dataset, record, out)
        drop_partial(out)
    return ScoredFiles(out, record, repeated=False)


def select_files(
    scored: str | Path,
    out: str | Path,
    *,
    top_k: int | None = None,
    fraction: float | None = None,
    threshold: float | None = None,
    per_group: tuple[str, int] | None = None,
    near_duplicates: float | None = None,
    exclude_contaminated: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    progress: bool = True,
) -> Mined:
    """Select from what ``score_files`` wrote; leaves the same folder as ``mine``.

    Args:
        scored: The file or folder.
        out: The folder to write.
        top_k: As ``mine`` takes it; so are all the others.
        fraction: See ``mine``.
        threshold: See ``mine``.
        per_group: See ``mine``.
        near_duplicates: See ``mine``.
        exclude_contaminated: See ``mine``.
        seed: See ``mine``.
        overwrite: See ``mine``.
        license: See ``mine``.
        language: See ``mine``.
        command: The command line that repeats the selection; the record tells it after that of the scoring.
        progress: Whether bars of `datasets` are shown.

    Returns:
        The folder, the record and the selection.

    Raises:
        OutputError: ``scored`` is no scored dataset, or ``out`` holds something that may not be replaced.
        HubError: The Hub knows no such licence or language.
        SelectionError: The selection cannot be met, or near-duplicates would need an embedder that cannot be had here.
    """
    folder = Path(out)
    wish = SelectionRequest(
        top_k=top_k,
        fraction=fraction,
        threshold=threshold,
        per_group=per_group,
        near_duplicates=near_duplicates,
        exclude_contaminated=exclude_contaminated,
        seed=seed,
    )
    check_facts(license, language)
    check_writable(folder)
    check_replaceable(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        refuse_another(folder, overwrite)
        check_loses_nothing(folder)
    with progress_bars(progress):
        given = read_scored(scored)
        clock = perf_counter()
        embedder = None if near_duplicates is None else _embedder(given.record)
        selection = select_rows(given.dataset, wish, columns=given.columns, embedder=embedder)
        record = replace(
            given.record,
            command=_both(given.record.command, command),
            selection=describe_selection(selection),
            seconds={**given.record.seconds, "select": round(perf_counter() - clock, 3)},
        )
        with written_whole(folder) as aside:
            record = write_result(aside, selection, record, license, language)
    return Mined(folder, record, replace(selection, record=record), repeated=False)


def _both(scoring: Sequence[str] | None, selecting: Sequence[str] | None) -> list[str] | None:
    """One command line that scores and then selects; None where one of the two was called from Python.

    Paths are cut to their last part here, word by word: within a script, nothing that publishes it would find them.

    >>> _both(["im-datasets", "score", "rows.jsonl"], ["im-datasets", "select", "/home/me/my scores"])
    ['sh', '-c', "im-datasets score rows.jsonl && im-datasets select 'my scores'"]
    """
    if not (scoring and selecting):
        return None
    return ["sh", "-c", " && ".join(shlex.join(map(cut_word, words)) for words in (scoring, selecting))]


def _embedder(record: ScoringRecord) -> Embedder:
    """The encoder that the rows were scored with; the default one where no indicator had any.

    Raises:
        SelectionError: The record names one that cannot be made again here.
    """
    for told in record.indicators:
        try:
            embedder = rebuild_embedder(told)
        except NotRescorable as error:
            raise SelectionError(
                f"near-duplicates are told by the embedder that the rows were scored with, and that of {told.name} "
                f"cannot be had here: {error}; select in Python with select(…, embedder=…), or without near-duplicates"
            ) from error
        if embedder is not None:
            return embedder
    return Embedder()
