"""The flow in two calls: score into files, then select from them, as often as wanted.

What ``pipeline.mine`` does in one. Each call leaves all it writes or nothing, and unfinished scores for the next one.
"""

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from datasets import Dataset

from im_datasets.common.errors import OutputError, SelectionError
from im_datasets.common.version import __version__
from im_datasets.data.columns import Columns
from im_datasets.data.prepare import prepare
from im_datasets.hub.manifest import cut_word
from im_datasets.hub.rescoring import NotRescorable, rebuild_embedder
from im_datasets.indicators.base import Indicator
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store
from im_datasets.output import (
    check_file_writable,
    check_loses_nothing,
    check_replaceable,
    check_writable,
    told_if_unwritable,
    written_whole,
)
from im_datasets.partial import drop_partial, partial_folder
from im_datasets.pipeline import (
    Mined,
    check_facts,
    models_of,
    progress_bars,
    read_source,
    write_result,
)
from im_datasets.report.result_folder import describe_selection
from im_datasets.report.templates import write_text
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.engines.base import ShardEngine
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.score import score
from im_datasets.scoring.scored_files import (
    find_damage,
    holds_scores,
    is_one_file,
    is_part,
    read_scored,
    record_path,
    write_shards,
)
from im_datasets.selection.select import check_request, select


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
    _check_place(out, overwrite=overwrite)
    with progress_bars(progress), nullcontext() if cache else using_store(None):
        clock = perf_counter()
        source = read_source(data, config, split, revision, streaming, limit)
        dataset, mapping = prepare(source.dataset, columns, every_turn=every_turn)
        models = models_of(InstructMining(chosen, indicators=indicators).indicators)
        asked = [__version__, source.info, mapping.to_dict(), chosen.to_dict(), repr(indicators), models]
        request = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        loading = perf_counter() - clock
        if (found := _finished(out, request, overwrite=overwrite)) is not None:
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
        _write(scored.dataset, record, out)
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
    wish: dict[str, Any] = {
        "top_k": top_k,
        "fraction": fraction,
        "threshold": threshold,
        "per_group": per_group,
        "near_duplicates": near_duplicates,
        "exclude_contaminated": exclude_contaminated,
        "seed": seed,
    }
    check_request(top_k=top_k, fraction=fraction, threshold=threshold, near_duplicates=near_duplicates)
    check_facts(license, language)
    check_writable(folder)
    check_replaceable(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        _refuse_another(folder, overwrite)
        check_loses_nothing(folder)
    with progress_bars(progress):
        given = read_scored(scored)
        clock = perf_counter()
        embedder = None if near_duplicates is None else _embedder(given.record)
        selection = select(given.dataset, columns=given.columns, embedder=embedder, **wish)
        record = replace(
            given.record,
            command=_both(given.record.command, command),
            selection=describe_selection(selection),
            seconds={**given.record.seconds, "select": round(perf_counter() - clock, 3)},
        )
        with written_whole(folder) as aside:
            record = write_result(aside, selection, record, given.columns, license, language)
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


def _check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is read, a place that cannot be written or holds what no record tells of.

    Raises:
        OutputError: The message says what is there.
    """
    if not is_one_file(out):
        check_writable(out)
        check_replaceable(out, overwrite=overwrite)
        return
    record = record_path(out)
    for path in (out, record):
        check_file_writable(path)
    if out.exists() and not record.is_file():
        what = "--overwrite only replaces what score wrote; " if overwrite else ""
        raise OutputError(f"{out} is there without a {record.name} beside it; {what}pass another name")


def _finished(out: Path, request: str, *, overwrite: bool) -> ScoringRecord | None:
    """The record of the same request, where its result lies whole; None where a new one may be written.

    Raises:
        OutputError: There is another result, or a damaged one, and it may not be replaced.
    """
    if not record_path(out).is_file():
        return None
    try:
        record = ScoringRecord.load(record_path(out))
    except OutputError as error:
        _refuse_another(out, overwrite, f"a damaged result ({error})")
        _check_loses_nothing(out, known=holds_scores(out))
        return None
    same, damage = record.request == request and record.selection is None, find_damage(out, record)
    if same and not damage:
        return record
    _refuse_another(out, overwrite, f"this very result, damaged: it {damage}" if same else "another result")
    _check_loses_nothing(out, known=True)
    return None


def _check_loses_nothing(out: Path, *, known: bool) -> None:
    """Refuse to replace what ``score`` did not write; ``known`` says whether the rows are known to be from it."""
    foreign = [] if is_one_file(out) else sorted(path.name for path in out.iterdir() if not is_part(path.name))
    if foreign:
        raise OutputError(f"{out} holds {foreign[0]}, which score did not write; pass another folder")
    if not known:
        raise OutputError(
            f"{record_path(out)} is no scoring record and {out} holds no scores, so that score may not have written "
            "them and --overwrite does not replace them; move them away, or pass another name"
        )


def _refuse_another(place: Path, overwrite: bool, what: str = "another result") -> None:
    if not overwrite:
        raise OutputError(f"{place} holds {what}; pass --overwrite (overwrite=True) to replace it, or another name")


def _write(dataset: Dataset, record: ScoringRecord, out: Path) -> None:
    """Write the rows, then the record, each aside first; a single file's record takes its place last."""
    if not is_one_file(out):
        with written_whole(out) as aside:
            write_shards(dataset, aside)
            (aside / record_path(out).name).write_text(record.to_json(), encoding="utf-8")
        return
    ready = partial_folder(out) / "file"
    with written_whole(ready) as aside:
        dataset.to_parquet(aside / out.name)
    with told_if_unwritable(out):
        # Two names cannot change at once: in between stands a record that fits no rows, and may be replaced.
        write_text(record_path(out), replace(record, request=None, rows=0).to_json())
        (ready / out.name).replace(os.path.realpath(out))
        write_text(record_path(out), record.to_json())
