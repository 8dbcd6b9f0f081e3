"""The folder that ``mine`` writes: what its files are called, and how to read a selection back from it."""

from glob import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.exceptions import DatasetsError

from im_datasets.common.errors import OutputError
from im_datasets.scoring.record import ScoringRecord
from im_datasets.selection.select import Selection

KEPT, DROPPED, RECORD, REPORT, CARD = "kept.parquet", "dropped.parquet", "record.json", "report.html", "README.md"

_GIVEN = ("kept", "dropped", "cut", "reasons")
"""What a selection gave, beside what was asked of it."""


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What was asked of a selection and what it gave, as plain data for a record."""
    given = (len(selection.kept), len(selection.dropped), selection.cut, dict(selection.reasons))
    return {**selection.settings, **dict(zip(_GIVEN, given, strict=True))}


def describe_settings(selection: dict[str, Any]) -> dict[str, Any]:
    """What was asked, out of what ``describe_selection`` told."""
    return {name: value for name, value in selection.items() if name not in _GIVEN}


def load_result(folder: str | Path) -> Selection:
    """Read the selection that ``mine`` wrote into a folder.

    Args:
        folder: What was given to ``mine`` as ``out``.

    Returns:
        Both sides, with their record.

    Raises:
        OutputError: The folder lacks one of its files, or one of them is not what ``mine`` writes.
    """
    folder = Path(folder)
    for name in (KEPT, DROPPED, RECORD):
        if not (folder / name).is_file():
            raise OutputError(f"{folder} has no {name}; pass the folder that im-datasets mine wrote (its --out)")
    record = ScoringRecord.load(folder / RECORD)
    told = record.selection
    if told is None:
        raise OutputError(f"{folder / RECORD} tells of no selection; pass the folder that im-datasets mine wrote")
    kept, dropped = (_read_side(folder / name) for name in (KEPT, DROPPED))
    return Selection(kept, dropped, describe_settings(told), told["cut"], told["reasons"], record)


def _read_side(path: Path) -> Dataset:
    """The rows of a Parquet file; `datasets` reads none where there are none."""
    try:
        if not pq.read_metadata(path).num_rows:
            return Dataset(pq.read_table(path))
        rows: Dataset = Dataset.from_parquet(escape(str(path)))
    except (pa.ArrowException, DatasetsError, OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read as Parquet ({type(error).__name__}); mine again") from error
    return rows
