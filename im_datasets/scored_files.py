"""A scored dataset as Parquet: one file or a folder of shards, with the record beside it."""

from glob import escape
from pathlib import Path

from datasets import Dataset

from im_datasets.columns import Columns
from im_datasets.errors import OutputError
from im_datasets.files import one_line
from im_datasets.record import ScoringRecord
from im_datasets.results import RECORD
from im_datasets.rule import LOG_LOSS
from im_datasets.scoring import Scored

FILE_ROWS = 131_072
"""Rows of a file in a folder of shards."""


def is_one_file(out: Path) -> bool:
    """Whether a name asks for one file rather than a folder."""
    return out.suffix == ".parquet"


def record_path(out: Path) -> Path:
    """Where the record of a scored file or folder lies.

    >>> record_path(Path("scored.parquet")).name, record_path(Path("scored")).as_posix()
    ('scored.record.json', 'scored/record.json')
    """
    return out.with_suffix(".record.json") if is_one_file(out) else out / RECORD


def is_part(path: str) -> bool:
    """Whether a path within a folder is one that ``write_shards`` gives, or the record.

    >>> is_part("data-00000-of-00001.parquet"), is_part("record.json"), is_part("notes.txt")
    (True, True, False)
    """
    return path == RECORD or (path.startswith("data-") and path.endswith(".parquet"))


def write_shards(dataset: Dataset, folder: Path) -> list[Path]:
    """Write all rows into an existing folder, some ten thousand a file.

    Args:
        dataset: The scored rows.
        folder: Where to.

    Returns:
        The files, in row order, named as `datasets` names shards.
    """
    count = -(-len(dataset) // FILE_ROWS)
    files = []
    for number in range(count):
        rows = range(number * FILE_ROWS, min((number + 1) * FILE_ROWS, len(dataset)))
        files.append(folder / f"data-{number:05d}-of-{count:05d}.parquet")
        dataset.select(rows).to_parquet(files[-1])
    return files


def read_scored(path: str | Path) -> Scored:
    """Read what ``im-datasets score`` wrote; the rows stay on disk.

    Args:
        path: The file or the folder.

    Raises:
        OutputError: It is not there, has no record, or is no scored dataset.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("data-*.parquet"))
    if not files or not record_path(path).is_file():
        raise OutputError(
            f"{path} is no scored dataset (it needs Parquet and {record_path(path).name}); "
            "pass what im-datasets score wrote (its --out)"
        )
    record = ScoringRecord.load(record_path(path))
    try:
        dataset = Dataset.from_parquet([escape(str(file)) for file in files])
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {path}: {one_line(error)}") from error
    if len(dataset) != record.rows or LOG_LOSS not in dataset.column_names:
        raise OutputError(f"{path} has {len(dataset)} rows, its record tells of {record.rows}; score again")
    return Scored(dataset, record, Columns(**record.columns["fields"]))
