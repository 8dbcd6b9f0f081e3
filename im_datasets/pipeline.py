"""The whole flow in one call: source → score → select → a folder with data, card, record and report.

Everything is written into a folder aside that takes its name at the very end, so that a run either leaves a
complete folder or none. A second call with the same request finds the folder and repeats nothing.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import pyarrow as pa
from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

from im_datasets.common.errors import ColumnsError, OutputError, SourceError
from im_datasets.common.storage import peak_memory_bytes
from im_datasets.common.version import __version__
from im_datasets.data.arrow import laid_out
from im_datasets.data.columns import Columns
from im_datasets.data.layouts import NAMES
from im_datasets.data.prepare import prepare
from im_datasets.data.source import Source, load_source
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.model import ModelIndicator
from im_datasets.models.embedder import Embedder
from im_datasets.models.value_store import using_store
from im_datasets.output import check_loses_nothing, check_replaceable, check_writable, missing_parts, written_whole
from im_datasets.partial import drop_partial, partial_folder
from im_datasets.report.card import CardFacts, as_codes, write_card
from im_datasets.report.card_facts import check_language, check_licence
from im_datasets.report.page import write_report
from im_datasets.report.result_folder import DROPPED, KEPT, RECORD, REPORT, describe_selection, load_result
from im_datasets.rules.instruct_mining import InstructMining
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.engines.base import ShardEngine
from im_datasets.scoring.record import ScoringRecord
from im_datasets.scoring.score import score
from im_datasets.selection.select import Selection, check_enough, check_request, select


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
    with progress_bars(progress), nullcontext() if cache else using_store(None):
        clock = perf_counter()
        source = read_source(data, config, split, revision, streaming, limit)
        dataset, mapping = prepare(source.dataset, columns, every_turn=every_turn)
        check_enough(top_k, len(dataset))
        models = models_of(InstructMining(chosen, indicators=indicators).indicators)
        asked = [source.info, mapping.to_dict(), chosen.to_dict(), repr(indicators), models, wish, license, language]
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
        selection = select(scored.dataset, columns=mapping, embedder=embedder_of(indicators), **wish)
        selecting = perf_counter() - clock
        record = replace(
            scored.record,
            request=request,
            command=list(command) if command else None,
            selection=describe_selection(selection),
            seconds={"load": round(loading, 3), **scored.record.seconds, "select": round(selecting, 3)},
        )
        with written_whole(folder) as aside:
            record = write_result(aside, selection, record, mapping, license, language)
        drop_partial(folder)
        selection = _lasting(replace(selection, record=record), folder)
    return Mined(folder, record, selection, repeated=False)


EVALUATION_COLUMNS = (*NAMES["instruction"], "turns", *NAMES["messages"], "text")
"""Where an evaluation set without responses keeps its instructions, first match first."""

_NO_RESPONSE = "im_response"
"""A column without values, in place of the responses that an evaluation set lacks."""


def evaluation_texts(data: str) -> list[str]:
    """The instructions of an evaluation set, for ``exclude_contaminated``.

    They are read as those of rows to be scored, so that equal rows give equal texts; what the responses are does not
    matter. Without responses, an input follows the instruction all the same. Rows of which none can be read are
    counted in a warning.

    Args:
        data: Anything that ``mine`` reads; responses are not needed. Of several turns that nobody answers the first
            counts.

    Returns:
        One text per row that can be read, none of them empty.

    Raises:
        SourceError: It cannot be read, no column of it is known to hold instructions, or no row holds one.
    """
    rows = load_source(data).dataset
    try:
        rows, columns = prepare(rows)
    except ColumnsError:
        rows, columns = _without_responses(rows, data)
    batches = rows.select_columns(list(columns.mapping.values())).iter(batch_size=1000)
    read = [columns.questions(_first_turns(batch, columns.instruction)) for batch in batches]
    reasons = [reason for pairs in read for reason in pairs.reasons]
    if unread := [row for row, reason in enumerate(reasons) if reason]:
        names = ", ".join(name for name in columns.mapping.values() if name != _NO_RESPONSE)
        told = (
            f"no instruction can be read in {len(unread)} of the {len(reasons)} rows of the evaluation set {data} "
            f"(columns {names}; row {unread[0]}: {reasons[unread[0]]})"
        )
        if len(unread) == len(reasons):
            raise SourceError(f"{told}; name the column of the instructions {EVALUATION_COLUMNS[0]!r}")
        warnings.warn(f"{told}; rows that repeat these are not dropped", stacklevel=2)
    return [text for pairs in read for text in pairs.scorable()[1].instructions]


def _without_responses(rows: Dataset, data: str) -> tuple[Dataset, Columns]:
    """The rows of an evaluation set whose responses cannot be told, and columns that read the instructions alone.

    Raises:
        SourceError: No column is known to hold instructions.
    """
    by_name = {name.strip().lower(): name for name in reversed(rows.column_names)}
    name = next((by_name[known] for known in EVALUATION_COLUMNS if known in by_name), None)
    if name is None:
        raise SourceError(
            f"no instructions in the evaluation set {data}: it has the columns {rows.column_names}; "
            f"name one of them {EVALUATION_COLUMNS[0]!r}"
        )
    if name.strip().lower() in NAMES["messages"]:
        return rows, Columns(messages=name)
    given = next((by_name[known] for known in NAMES["input"] if known in by_name), None)
    rows = rows.add_column(_NO_RESPONSE, pa.nulls(len(rows)))
    return rows, Columns(instruction=name, input=given, response=_NO_RESPONSE)


def _first_turns(batch: dict[str, list[Any]], instruction: str | None) -> dict[str, list[Any]]:
    """A batch in which a list of texts, asked one after another, is the first of them."""
    if instruction is None:
        return batch
    values = [value[0] if isinstance(value, list) and _are_texts(value) else value for value in batch[instruction]]
    return {**batch, instruction: values}


def _are_texts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def check_facts(license: str | None, language: str | Sequence[str] | None) -> None:
    """Check what a card shall say before anything is computed.

    Raises:
        HubError: The Hub knows no such licence or language.
    """
    if license:
        check_licence(license)
    for code in as_codes(language):
        check_language(code)


def read_source(
    data: str | Path | Dataset,
    config: str | None,
    split: str | None,
    revision: str | None,
    streaming: bool,
    limit: int | None,
) -> Source:
    """The rows and where they come from; arguments as of ``mine``.

    Raises:
        SourceError: The data cannot be found or read.
    """
    if not isinstance(data, Dataset):
        return load_source(
            str(data),
            config=config,
            split=split,
            revision=revision,
            streaming=streaming,
            limit=limit,
        )
    rows = data if limit is None else data.select(range(min(limit, len(data))))
    info = {"kind": "dataset", "fingerprint": rows._fingerprint, "rows": len(rows), "limit": limit, "seed": None}
    return Source(rows, info)


def models_of(indicators: Sequence[Indicator]) -> list[dict[str, Any]]:
    """Which weights the indicators run with: a folder or a branch may hold others the next time.

    Raises:
        ModelError: A model cannot be had.
    """
    found = []
    for indicator in indicators:
        if isinstance(indicator, ModelIndicator):
            found.append(indicator.describe())
        elif isinstance(embedder := getattr(indicator, "embedder", None), Embedder):
            found.append({"embedder": embedder.weights()})
    return found


def embedder_of(indicators: Sequence[Indicator]) -> Embedder:
    """The encoder that the run's indicators use, so that near-duplicates are told by the same vectors."""
    used = (getattr(indicator, "embedder", None) for indicator in indicators)
    return next((embedder for embedder in used if isinstance(embedder, Embedder)), Embedder())


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


def write_result(
    folder: Path,
    selection: Selection,
    record: ScoringRecord,
    columns: Columns,
    license: str | None,
    language: str | Sequence[str] | None,
) -> ScoringRecord:
    """Write every part of a result; the record last, with the time and memory of the others in it."""
    clock = perf_counter()
    for rows, name in ((selection.kept, KEPT), (selection.dropped, DROPPED)):
        with laid_out(rows, folder) as lying:
            lying.to_parquet(folder / name)
    written = perf_counter()
    write_report(selection, record, columns, folder / REPORT)
    write_card(selection, record, folder, CardFacts.of(license, language))
    seconds = {
        **record.seconds,
        "write": round(written - clock, 3),
        "report": round(perf_counter() - written, 3),
    }
    record = replace(record, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Hide the bars of `datasets` for a while, unless they are wanted; never show what the user switched off."""
    hide = not shown and is_progress_bar_enabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
