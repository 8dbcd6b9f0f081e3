"""Local data files → rows: finding them, reading them, and saying what is wrong with them.

JSON goes through the `datasets` loader first. Where that gives up (columns that change type or appear late in a
big file) or changes values (texts that look like dates), the rows are read here, as they stand.
"""

import bz2
import glob
import gzip
import json
import lzma
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, Json, NamedSplit, Value, load_dataset
from datasets.exceptions import DatasetsError

from im_datasets.common.errors import SourceError, UntrustedError, message_of
from im_datasets.common.untrusted import lies_in
from im_datasets.data.conversations import mark_half_pairs
from im_datasets.data.parquet_bounds import check_parquet
from im_datasets.data.text_bounds import check_text

FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
"""Suffix → loader; each may be followed by .gz, .bz2 or .xz."""

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_RESULT_MARKS = ("record.json", "instructmining.json")
"""What lies in a folder of selected rows, written by ``mine`` or published by ``push``."""

_NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json", "state.json", *_RESULT_MARKS}
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_INT64 = 2**63
_FAILURES = (DatasetsError, pa.ArrowException, ValueError, OSError, EOFError, KeyError, TypeError, RecursionError)
"""What the loaders raise over a file they cannot read."""


def find_files(data: str) -> dict[str, list[Path]]:
    """The data files behind a path, a folder or a glob.

    Args:
        data: As the user wrote it.

    Returns:
        Split → files in order of their names; a file or a glob is one split, ``train``, and a folder is split by
        the names of its files, as `datasets` does, one of selected rows into its sides. Empty where nothing is there.

    Raises:
        SourceError: There is something, but no data file that can be read, or one that is none or lies elsewhere.
    """
    path = Path(data).expanduser()
    splits: dict[str, list[Path]] = defaultdict(list)
    if path.is_file():
        files = splits["train"] = [path]
    elif path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if not file.is_dir() and _is_data(file, path)]
        _check_inside(path, files)
        is_result = any((path / mark).is_file() for mark in _RESULT_MARKS)
        for file in files:
            # The sides of a selection: ``kept.parquet``, or the shards in ``kept/``.
            side = Path(file.relative_to(path).parts[0]).stem
            splits[side if is_result else _split_of(file, path)].append(file)
    else:
        if path.exists():
            raise SourceError(f"{path.name} is no plain file, and is not opened; pass a file, a folder or a glob")
        # A pattern may be absolute, which Path.glob refuses.
        paths = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
        files = [file for file in paths if not file.is_dir()]
        _check_inside(_fixed_part(path), files)
        if files:
            splits["train"] = files
    if path.is_dir() and not files:
        raise SourceError(f"no data files in the folder {data}; accepted: {_accepted()}")
    for file in files:
        if format_of(file) is None:
            raise SourceError(f"cannot tell the format of {file.name}; accepted: {_accepted()}")
        if file.stat().st_size == 0:
            raise SourceError(f"the file {file.name} is empty")
    return dict(splits)


def _fixed_part(pattern: Path) -> Path:
    """The folder of a pattern that holds whatever matches it."""
    return next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def _check_inside(folder: Path, files: list[Path]) -> None:
    """Refuse links that lead out of a folder, which may be a stranger's, and what is no file: a pipe never ends.

    Raises:
        SourceError: Names the first one.
    """
    for file in files:
        try:
            real = file.resolve(strict=True)
        except (OSError, RuntimeError):
            raise SourceError(f"{file.name} is a link that leads nowhere; remove it, or mend it") from None
        if not real.is_file():
            raise SourceError(f"{file.name} is no plain file, and is not opened; remove it, or pass another file")
        if not lies_in(folder, real):
            raise SourceError(
                f"{file.name} is a link that leads out of the folder {folder.name or folder}, and is not followed; "
                "pass that file by its own path, or copy it here"
            )


def read_files(files: list[Path], split: str) -> Dataset:
    """Read files of one format as one dataset.

    Args:
        files: Not empty.
        split: Name of the split that they are.

    Raises:
        SourceError: The files are of different formats, broken, or without rows.
    """
    kind = _only_format(files)
    if kind != "parquet":
        _check_text(files)
    else:
        files = _with_rows(files)
    try:
        rows = _load(kind, files, split, streaming=False)
    except _FAILURES as error:
        if kind == "json":
            return _read_json(files, split)
        problem = one_line(error)
        # Of `datasets`: Instruction "train" corresponds to no data!
        if problem.endswith("no data!"):
            raise SourceError(f"no rows in {_few(files)}") from error
        raise SourceError(f"cannot read {_few(files)}: {problem}") from error
    return _read_json(files, split) if kind == "json" and _has_dates(rows) else rows


def stream_files(files: list[Path], split: str) -> IterableDataset:
    """The rows of files of one format, read one after another.

    Raises:
        SourceError: The files are of different formats, or do not begin like a dataset that can be streamed.
    """
    kind = _only_format(files)
    if kind == "json":
        _check_text(files)
    files = _with_rows(files) if kind == "parquet" else files
    try:
        rows = _load(kind, files, split, streaming=True)
    except _FAILURES as error:
        raise SourceError(f"cannot stream {_few(files)}: {one_line(error)}") from error
    if kind == "json" and _has_dates(rows):
        raise SourceError(f"cannot stream {_few(files)}: the loader takes texts for dates")
    return rows


def _with_rows(files: list[Path]) -> list[Path]:
    """The Parquet files that have rows; `datasets` cannot open the others.

    Raises:
        SourceError: None has, or they would come to more than they should.
    """
    filled, measured = [], {}
    for file in files:
        # A broken or compressed file is for the loader to read.
        with suppress(pa.ArrowException, OSError):
            if not pq.read_metadata(file).num_rows:
                continue
            # By their whole paths where two have one name.
            measured[str(file) if file.name in measured else file.name] = file
        filled.append(file)
    if not filled:
        raise SourceError(f"no rows in {_few(files)}")
    try:
        check_parquet(measured)
    except UntrustedError as error:
        raise SourceError(str(error)) from error
    return filled


def _only_format(files: list[Path]) -> str:
    formats = sorted({str(format_of(file)) for file in files})
    if len(formats) > 1:
        raise SourceError(
            f"files of different formats ({', '.join(formats)}) side by side: {_few(files)}; pass a glob of one "
            "of them, such as 'folder/*.jsonl'"
        )
    return formats[0]


def fingerprint(files: Iterable[Path]) -> str:
    """Digest of names and contents: sha256, 64 hexadecimal digits."""
    digest = sha256()
    for file in files:
        # The zero byte, which no name holds, keeps a name and the contents after it apart.
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            file_digest(stream, lambda: digest)
    return digest.hexdigest()


def format_of(file: Path) -> str | None:
    """The loader for a file's name; None where there is none."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def one_line(error: BaseException) -> str:
    """An error's cause in one line: what the innermost library said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return message_of(error)


def _load(kind: str, files: list[Path], split: str, *, streaming: bool) -> Any:
    options: dict[str, Any] = {}
    if kind == "csv":
        # A CSV file says nothing of types: every value is the text that stands there, "N/A" and "007" too.
        separator = _separator(files[0])
        for file in files:
            _check_table(file, separator)
        header = pd.read_csv(files[0], sep=separator, nrows=0).columns
        features = Features({str(column): Value("string") for column in header})
        options = {"sep": separator, "keep_default_na": False, "features": features}
    # The loaders take a path for a pattern.
    paths = {split: [glob.escape(str(file.absolute())) for file in files]}
    return load_dataset(kind, data_files=paths, split=split, streaming=streaming, **options)


def _separator(file: Path) -> str:
    """What stands between two columns of a table in a file of this name."""
    return "\t" if ".tsv" in file.suffixes else ","


def _check_table(file: Path, separator: str) -> None:
    """Refuse what the CSV loader reads otherwise than it stands.

    It takes the first values of rows that are longer than the header for row names, which moves all others by one
    column; rows longer than the first one it refuses itself. Columns of one name it renames.

    Raises:
        SourceError: The first row has more values than the header, or the header has a name twice.
    """
    options: dict[str, Any] = {"sep": separator, "nrows": 1, "dtype": str, "keep_default_na": False}
    first = pd.read_csv(file, **options)
    if len(first) and not isinstance(first.index, pd.RangeIndex):
        values, columns = first.index.nlevels + len(first.columns), len(first.columns)
        raise SourceError(
            f"the first row under the header of {file.name} has {values} values for {columns} columns; "
            "name every column in the header, or put values that hold the separator into quotes"
        )
    names = [str(name) for name in pd.read_csv(file, header=None, **options).iloc[0] if name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"which column of {file.name} is {twice[0]!r}? The header names it twice; rename one of them")


def _has_dates(rows: Dataset | IterableDataset) -> bool:
    """JSON has no dates: a column of them is text that the loader has changed."""
    kinds = [str(getattr(feature, "dtype", "")) for feature in (rows.features or {}).values()]
    return any(kind.startswith(("timestamp", "date", "time")) for kind in kinds)


def _read_json(files: list[Path], split: str) -> Dataset:
    """Read JSON rows as they stand; in a column of more than one type each value keeps its own.

    Raises:
        SourceError: A file is no JSON, its line named, or holds something else than rows.
    """
    kinds: dict[str, set[type]] = defaultdict(set)
    for row in _json_rows(files):
        for column, value in row.items():
            kinds[column].add(_kind(value))
    if not kinds:
        raise SourceError(f"no rows in {_few(files)}")
    for column in kinds:
        if "\0" in column or mark_half_pairs(column) != column:
            raise SourceError(f"no dataset can hold the column name {column!r} of {_few(files)}; rename it")
    features = Features({column: _feature(seen - {type(None)}) for column, seen in kinds.items()})
    settings = {"files": tuple(map(str, files)), "columns": tuple(features), "digest": fingerprint(files)}
    try:
        return Dataset.from_generator(_complete_rows, gen_kwargs=settings, features=features, split=NamedSplit(split))
    except _FAILURES as error:
        raise SourceError(f"cannot read {_few(files)}: {one_line(error)}") from error


def _kind(value: Any) -> type:
    """The value's type; whole numbers beyond 64 bits count as something that only JSON can hold."""
    large = isinstance(value, int) and not -_INT64 <= value < _INT64
    # Not isinstance, for which a bool would be a whole number.
    return dict if large else type(value)


def _feature(kinds: set[type]) -> Any:
    simple = {str: "string", bool: "bool", int: "int64", float: "float64"}
    if not kinds:
        return Value("null")
    if kinds == {int, float}:
        return Value("float64")
    (kind, *others) = kinds
    return Json() if others or kind not in simple else Value(simple[kind])


def _complete_rows(files: tuple[str, ...], columns: tuple[str, ...], digest: str) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Rows with every column; the digest tells `datasets` when the files have changed."""
    for row in _json_rows([Path(file) for file in files]):
        yield {column: _writable(row.get(column)) for column in columns}


def _writable(value: Any) -> Any:
    """The value with its half surrogate pairs marked: JSON can spell them, and no file can hold them."""
    if isinstance(value, str):
        return mark_half_pairs(value)
    if isinstance(value, dict):
        return {mark_half_pairs(name): _writable(inner) for name, inner in value.items()}
    return [_writable(inner) for inner in value] if isinstance(value, list) else value


def _json_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        for number, row in enumerate(_json_values(file), 1):
            if not isinstance(row, dict):
                kind = type(row).__name__
                raise SourceError(f"row {number} of {file.name} is of type {kind}; each row must be an object")
            yield row


def _json_values(file: Path) -> Iterator[Any]:
    """The items of an array, or the values of the lines.

    Raises:
        SourceError: Not JSON; the message names the line.
    """
    try:
        # -sig: the byte order mark that some editors put first is no part of the JSON.
        with _OPENERS.get(file.suffix.lower(), open)(file, "rt", encoding="utf-8-sig") as stream:
            first = next((line for line in stream if line.strip()), "")
            stream.seek(0)
            if first.lstrip().startswith("["):
                yield from json.load(stream)
            else:
                yield from _lines(stream, file)
    except json.JSONDecodeError as error:
        raise SourceError(f"line {error.lineno} of {file.name} is not JSON: {error.msg}; mend or remove it") from error
    # Python reads no whole number of more than 4,300 digits.
    except ValueError as error:
        raise SourceError(f"{file.name} holds a number with more digits than can be read; shorten it") from error
    except RecursionError as error:
        raise SourceError(f"{file.name} holds values nested too deeply to be read; remove them") from error


def _lines(stream: IO[str], file: Path) -> Iterator[Any]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            # The first line of an object that is written over several.
            if number == 1 and line.strip() in ("{", "{}"):
                raise SourceError(f"{file.name} is one JSON object; save its rows as a list or as lines") from error
            raise SourceError(f"line {number} of {file.name} is not JSON: {error.msg}; mend or remove it") from error
        except ValueError as error:
            digits = "a number with more digits than can be read; shorten it"
            raise SourceError(f"line {number} of {file.name} holds {digits}") from error
        except RecursionError as error:
            raise SourceError(f"line {number} of {file.name} is nested too deeply to be read; remove it") from error


def _check_text(files: Iterable[Path]) -> None:
    """Refuse what the loaders let pass, or what ends their process.

    Raises:
        SourceError: As ``check_text``, or a file cannot be read.
    """
    for file in files:
        opener = _OPENERS.get(file.suffix.lower())
        packed = file.stat().st_size if opener else None
        open_file = partial(opener or open, file, "rb")
        try:
            kind = format_of(file)
            separator = _separator(file) if kind == "csv" else None
            check_text(file.name, open_file, packed=packed, is_json=kind == "json", separator=separator)
        except UntrustedError as error:
            raise SourceError(str(error)) from error
        except (EOFError, OSError, lzma.LZMAError) as error:
            raise SourceError(f"cannot read {file.name}: {one_line(error)}") from error


def _accepted() -> str:
    return f"{', '.join(FORMATS)}, each also with {', '.join(_OPENERS)}"


def _is_data(file: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return not is_hidden and format_of(file) is not None and file.name not in _NO_DATA


def _split_of(file: Path, folder: Path) -> str:
    # By whole words: `latest.json` is no test split, `test-00000-of-00001.parquet` is.
    words = set(re.split(r"[^a-z]+", str(file.relative_to(folder)).lower()))
    return next((split for split, names in _SPLIT_WORDS.items() if words & set(names)), "train")


def _few(files: list[Path]) -> str:
    names = [file.name for file in files[:3]]
    return ", ".join(names) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
