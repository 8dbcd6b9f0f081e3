"""The whole flow in one call: source → score → select → a folder with data, card, record and report.

Everything is written into a folder aside that takes its name at the very end, so that a run either leaves a
complete folder or none. A second call with the same request finds the folder and repeats nothing.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

from im_datasets import __version__
from im_datasets.card import write_card
from im_datasets.columns import Columns
from im_datasets.embedding import Embedder
from im_datasets.errors import OutputError, SourceError
from im_datasets.indicators.base import Indicator
from im_datasets.record import ScoringRecord
from im_datasets.report import write_report
from im_datasets.resources import peak_memory_bytes
from im_datasets.rows import prepare
from im_datasets.rule import LinearRule
from im_datasets.scoring import score
from im_datasets.selection import Selection, check_request, select
from im_datasets.source import Source, load_source

KEPT, DROPPED, RECORD, REPORT, CARD = (
    "kept.parquet",
    "dropped.parquet",
    "record.json",
    "report.html",
    "README.md",
)


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
) -> Mined:
    """Score a dataset, keep the best rows, and write a folder that explains itself.

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

    Returns:
        The folder, the record and the selection.

    Raises:
        SourceError: The data cannot be found or read.
        ColumnsError: Instruction and response cannot be told from the column names.
        RuleError: The rule is unknown, or needs a column that no indicator here writes.
        SelectionError: The selection cannot be met.
        OutputError: ``out`` holds something that this call may not replace.
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
    _check_replaceable(folder, overwrite)
    with _progress_bars(progress):
        clock = perf_counter()
        source = _source(data, config, split, revision, streaming, limit)
        dataset, mapping = prepare(source.dataset, columns, every_turn=every_turn)
        asked = [source.info, mapping.to_dict(), chosen.to_dict(), repr(indicators), wish, license, language]
        request = sha256(json.dumps([__version__, *asked], sort_keys=True).encode()).hexdigest()
        loading = perf_counter() - clock
        if (found := _finished(folder, request)) is not None:
            return found
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise OutputError(f"{folder} holds another result; pass --overwrite (overwrite=True) or another folder")
        scored = score(dataset, chosen, indicators=indicators, columns=mapping, source=source.info, progress=progress)
        clock = perf_counter()
        selection = select(scored.dataset, columns=mapping, embedder=_embedder(indicators), **wish)
        selecting = perf_counter() - clock
        record = replace(
            scored.record,
            request=request,
            command=list(command) if command else None,
            selection=describe_selection(selection),
            seconds={"load": round(loading, 3), **scored.record.seconds, "select": round(selecting, 3)},
        )
        with _written_whole(folder) as aside:
            record = _write(aside, selection, record, mapping, license, language)
    return Mined(folder, record, selection, repeated=False)


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What was asked of a selection and what it gave, as plain data for a record."""
    given = {"kept": len(selection.kept), "dropped": len(selection.dropped)}
    return {**selection.settings, **given, "cut": selection.cut, "reasons": dict(selection.reasons)}


EVALUATION_COLUMNS = ("instruction", "prompt", "question", "turns", "conversations", "text")
"""Where an evaluation set without responses keeps its instructions, first match first."""


def evaluation_texts(data: str) -> list[str]:
    """The instructions of an evaluation set, for ``exclude_contaminated``.

    Args:
        data: Anything that ``mine`` reads; responses are not needed. Of several turns the first counts.

    Raises:
        SourceError: It cannot be read, or no column of it is known to hold instructions.
    """
    rows = load_source(data).dataset
    by_name = {name.lower(): name for name in reversed(rows.column_names)}
    name = next((by_name[known] for known in EVALUATION_COLUMNS if known in by_name), None)
    if name is None:
        raise SourceError(
            f"no instructions in the evaluation set {data}: it has the columns {rows.column_names}; "
            f"name one of them {EVALUATION_COLUMNS[0]!r}"
        )
    firsts = [value[0] if isinstance(value, list) and value else value for value in rows[name]]
    return [text for text in firsts if isinstance(text, str) and text.strip()]


def _source(
    data: str | Path | Dataset,
    config: str | None,
    split: str | None,
    revision: str | None,
    streaming: bool,
    limit: int | None,
) -> Source:
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
    return Source(rows, {"kind": "dataset", "fingerprint": rows._fingerprint, "rows": len(rows)})


def _embedder(indicators: Sequence[Indicator]) -> Embedder:
    """The encoder that the run's indicators use, so that near-duplicates are told by the same vectors."""
    used = (getattr(indicator, "embedder", None) for indicator in indicators)
    return next((embedder for embedder in used if isinstance(embedder, Embedder)), Embedder())


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Never replace a folder that this function did not write."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; pass a folder")
    if any(folder.iterdir()) and not (folder / RECORD).is_file():
        what = "--overwrite only replaces results of im-datasets; " if overwrite else ""
        raise OutputError(f"{folder} is not empty and holds no {RECORD}; {what}pass another folder")


def _finished(folder: Path, request: str) -> Mined | None:
    """The result of the same request, where it lies in the folder whole."""
    if not all((folder / name).is_file() for name in (KEPT, DROPPED, RECORD, REPORT, CARD)):
        return None
    record = ScoringRecord.load(folder / RECORD)
    if record.request != request or record.selection is None:
        return None
    kept, dropped = (Dataset.from_parquet(str(folder / name)) for name in (KEPT, DROPPED))
    counts = {"kept", "dropped", "cut", "reasons"}
    settings = {name: value for name, value in record.selection.items() if name not in counts}
    selection = Selection(kept, dropped, settings, record.selection["cut"], record.selection["reasons"])
    return Mined(folder, record, selection, repeated=True)


def _write(
    folder: Path,
    selection: Selection,
    record: ScoringRecord,
    columns: Columns,
    license: str | None,
    language: str | Sequence[str] | None,
) -> ScoringRecord:
    """Write every part of a result; the record last, with the time and memory of the others in it."""
    clock = perf_counter()
    selection.kept.to_parquet(folder / KEPT)
    selection.dropped.to_parquet(folder / DROPPED)
    written = perf_counter()
    write_report(selection, record, columns, folder / REPORT)
    write_card(selection, record, folder, license=license, language=language)
    seconds = {
        **record.seconds,
        "write": round(written - clock, 3),
        "report": round(perf_counter() - written, 3),
    }
    record = replace(record, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder aside that takes the name at the end, or vanishes when the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if folder.exists():
            old = aside.with_suffix(".old")
            folder.rename(old)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """Hide the bars of `datasets` for a while, unless they are wanted; never show what the user switched off."""
    hide = not shown and is_progress_bar_enabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
