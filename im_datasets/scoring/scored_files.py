"""A scored dataset as Parquet: one file or a folder of data files, with the record beside it."""

import os
import re
from dataclasses import replace
from glob import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from im_datasets.common.errors import OutputError
from im_datasets.common.storage import (
    check_file_writable,
    check_writable,
    output_errors,
    write_text,
    written_whole,
)
from im_datasets.data.arrow import write_parquet
from im_datasets.data.files import one_line
from im_datasets.rules.linear import LOG_LOSS
from im_datasets.scoring.record import RECORD, ScoringRecord, check_replaceable
from im_datasets.scoring.run_folder import unfinished_folder
from im_datasets.scoring.score import Scored

FILE_ROWS = 131_072
"""Rows of a data file in a folder."""

_DATA_FILE = re.compile(r"data-\d{5,}-of-(\d{5,})\.parquet")


def record_path(out: Path) -> Path:
    """Where the record lies of a scored file, whose name ends in ``.parquet``, or of a folder.

    >>> record_path(Path("scored.parquet")).name, record_path(Path("scored")).as_posix()
    ('scored.record.json', 'scored/record.json')
    """
    return out.with_suffix(".record.json") if _is_one_file(out) else out / RECORD


def _is_one_file(out: Path) -> bool:
    return out.suffix == ".parquet"


def _file_names(count: int) -> list[str]:
    """What so many files of a folder are called, in row order, as `datasets` names them."""
    return [f"data-{number:05d}-of-{count:05d}.parquet" for number in range(count)]


def _data_files(path: Path) -> list[Path]:
    """The Parquet files of a scored file or folder, in row order; none where it is not there."""
    return [path] if path.is_file() else sorted(file for file in path.glob("data-*") if _DATA_FILE.fullmatch(file.name))


def find_damage(path: Path, record: ScoringRecord) -> str:
    """How what lies there differs from what its record tells, as far as names and footers of the files show it.

    Args:
        path: The file or the folder.
        record: Its record.

    Returns:
        What is wrong, to follow the path in a sentence; an empty text where nothing is.
    """
    files = _data_files(path)
    names = [file.name for file in files]
    expected = _file_names(int(_DATA_FILE.sub(r"\1", names[0]))) if names and path.is_dir() else names
    for name in sorted(set(expected) ^ set(names)):
        return f"lacks {name}" if name in expected else f"holds {name} of another result"
    if not holds_scores(path):
        return f"holds no Parquet with the column {LOG_LOSS}"
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return "" if rows == record.rows else f"has {rows} rows, its record tells of {record.rows}"


def holds_scores(path: Path) -> bool:
    """Whether all files that lie there are Parquet with a score, as those of a result with a torn record still are."""
    try:
        columns = [pq.read_schema(file).names for file in _data_files(path)]
    except (pa.ArrowException, OSError):
        return False
    return bool(columns) and all(LOG_LOSS in names for names in columns)


def read_scored(path: str | Path) -> Scored:
    """Read what ``im-datasets score`` wrote; the rows stay on disk.

    Args:
        path: The file or the folder.

    Raises:
        OutputError: It is not there, has no record, or is no scored dataset.
    """
    path = Path(path)
    files = _data_files(path)
    if not files or not record_path(path).is_file():
        raise OutputError(
            f"{path} is no scored dataset (it needs Parquet and {record_path(path).name}); "
            "pass what im-datasets score wrote (its --out)"
        )
    record = ScoringRecord.load(record_path(path))
    if damage := find_damage(path, record):
        raise OutputError(f"{path} {damage}; score again")
    try:
        # Each name is taken for a pattern.
        dataset = Dataset.from_parquet([escape(str(file)) for file in files])
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {path}: {one_line(error)}") from error
    return Scored(dataset, record, record.columns)


def check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is read, a place that cannot be written or holds what no record tells of.

    Raises:
        OutputError: The message says what is there.
    """
    if not _is_one_file(out):
        check_writable(out)
        check_replaceable(out, overwrite=overwrite)
        return
    record = record_path(out)
    for path in (out, record):
        check_file_writable(path)
    if out.exists() and not record.is_file():
        what = "--overwrite only replaces what score wrote; " if overwrite else ""
        raise OutputError(f"{out} is there without a {record.name} beside it; {what}pass another name")


def finished_scores(out: Path, request: str, *, overwrite: bool) -> ScoringRecord | None:
    """The record of the same request, where its result lies whole; None where a new one may be written.

    Raises:
        OutputError: There is another result, or a damaged one, and it may not be replaced.
    """
    if not record_path(out).is_file():
        return None
    try:
        record = ScoringRecord.load(record_path(out))
    except OutputError as error:
        refuse_another(out, overwrite, f"a damaged result ({error})")
        _check_loses_nothing(out, is_scored=holds_scores(out))
        return None
    is_same, damage = record.request == request and record.selection is None, find_damage(out, record)
    if is_same and not record.rows:
        return None  # of this very request, killed while rows and record took their names
    if is_same and not damage:
        return record
    refuse_another(out, overwrite, f"this very result, damaged: it {damage}" if is_same else "another result")
    _check_loses_nothing(out, is_scored=True)
    return None


def _check_loses_nothing(out: Path, *, is_scored: bool) -> None:
    """Refuse to replace what ``score`` did not write; ``is_scored`` says whether the rows are known to be from it."""
    if not _is_one_file(out):
        for name in sorted(path.name for path in out.iterdir()):
            if name != RECORD and not _DATA_FILE.fullmatch(name):
                raise OutputError(f"{out} holds {name}, which score did not write; pass another folder")
    if not is_scored:
        raise OutputError(
            f"{record_path(out)} is no scoring record and {out} holds no scores, so that score may not have written "
            "them and --overwrite does not replace them; move them away, or pass another name"
        )


def refuse_another(place: Path, overwrite: bool, what: str = "another result") -> None:
    """Refuse to replace what lies in a place unless that was asked for.

    Raises:
        OutputError: It was not.
    """
    if not overwrite:
        raise OutputError(f"{place} holds {what}; pass --overwrite (overwrite=True) to replace it, or another name")


def write_scored(dataset: Dataset, record: ScoringRecord, out: Path) -> None:
    """Write the rows, then the record, each aside first; a single file's record takes its place last."""
    if not _is_one_file(out):
        with output_errors(out), written_whole(out) as aside:
            aside.mkdir()
            for number, name in enumerate(_file_names(-(-len(dataset) // FILE_ROWS))):
                rows = range(number * FILE_ROWS, min((number + 1) * FILE_ROWS, len(dataset)))
                write_parquet(dataset.select(rows), aside / name)
            (aside / RECORD).write_text(record.to_json(), encoding="utf-8")
        return
    ready = unfinished_folder(out) / "file"
    with output_errors(ready), written_whole(ready) as aside:
        aside.mkdir()
        write_parquet(dataset, aside / out.name)
    with output_errors(out):
        # Two names cannot change at once: in between stands a record that fits no rows, which nobody reads and the
        # same request replaces.
        write_text(record_path(out), replace(record, rows=0).to_json())
        (ready / out.name).replace(os.path.realpath(out))
        write_text(record_path(out), record.to_json())
