"""A folder that ``save_to_disk`` wrote, or that seems so → its rows, from files in that folder alone."""

from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, DatasetInfo, Split
from datasets.table import MemoryMappedTable, concat_tables

from im_datasets.common.errors import SourceError
from im_datasets.common.untrusted import file_in, parse_json, read_bytes, shown
from im_datasets.data.files import fingerprint

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


class Saved(NamedTuple):
    """A saved dataset: its rows, its split where it has one, and the names and the digest of its files."""

    rows: Dataset
    split: str | None
    files: list[str]
    fingerprint: str


def is_saved(folder: Path) -> bool:
    """Whether a folder looks as if `datasets` had saved a dataset, or several splits, there."""
    return any((folder / name).is_file() for name in (DICT, STATE))


def saved_splits(folder: Path) -> list[str] | None:
    """The splits of a saved ``DatasetDict``, each a folder of that name; None for one dataset.

    Raises:
        UntrustedError: What says so is not JSON, too large, or leads elsewhere.
        SourceError: A split is no name of a folder.
    """
    if all((folder / name).is_file() for name in (STATE, INFO)) or not (folder / DICT).is_file():
        return None
    described = _json(folder, DICT)
    splits = described.get("splits")
    names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
    for name in names:
        if not name or Path(name).name != name or (folder / name).resolve() != folder.resolve() / name:
            raise SourceError(f"{DICT} of {folder.name} names the split {shown(name)!r}, which is no folder in it")
    return names


def read_saved(folder: Path) -> Saved:
    """Map one saved dataset.

    Neither a format nor a fingerprint is taken over: the one could ask for any library, by the other `datasets` would
    find what it computed before from other rows.

    Args:
        folder: Where its ``state.json`` lies.

    Raises:
        UntrustedError: A file leads elsewhere, or what describes the rows is too large or not JSON.
        FileNotFoundError: A file is missing.
        ValueError: The rows are not as they are described.
    """
    state, described = _json(folder, STATE), _json(folder, INFO)
    names = [each.get("filename") for each in state.get("_data_files") or [] if isinstance(each, dict)]
    files = [file_in(folder, str(name)) for name in names]
    if missing := [name for name, file in zip(names, files, strict=True) if file is None]:
        raise FileNotFoundError(f"{shown(missing[0])} is missing")
    if not files:
        raise ValueError(f"{STATE} names no data files")
    paths = [file for file in files if file is not None]
    table = concat_tables([MemoryMappedTable.from_file(str(path)) for path in paths])
    split, digest = state.get("_split"), fingerprint(paths)
    split = split if isinstance(split, str) else None
    info = DatasetInfo.from_dict(described)
    name = sha256(f"{digest} {info.features}".encode()).hexdigest()[:16]
    rows = Dataset(table, info=info, split=split and Split(split), fingerprint=name)
    return Saved(rows, split, sorted(path.name for path in paths), digest)


def _json(folder: Path, name: str) -> dict[str, Any]:
    place = file_in(folder, name)
    if place is None:
        raise FileNotFoundError(f"{name} is missing")
    data = parse_json(read_bytes(place, name), name)
    if not isinstance(data, dict):
        raise ValueError(f"{name} is no JSON object")
    return data
