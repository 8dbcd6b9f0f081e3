"""Images, sounds and the like of rows to publish: their bytes, and of files only those that the user handed over."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, LargeList, List
from numpy.typing import NDArray

from im_datasets.common.errors import HubError
from im_datasets.data.arrow import is_media, stored
from im_datasets.data.source import HUB_ID
from im_datasets.hub.client import client_errors, explain, try_again
from im_datasets.selection.select import ROW

_AT_A_TIME = 20
"""Rows whose media are in memory: films are large."""

_SHOWN = 200
_HUB_FILES = re.compile(rf"({HUB_ID.pattern})@([0-9a-f]{{40}})")


@dataclass(frozen=True)
class MediaFiles:
    """The files whose content may be published where a row names one without its bytes.

    A row may come from a stranger, and so may name any file of this machine, or any address. So may a record, which is
    therefore never asked.

    Attributes:
        folder: A folder with its links resolved, whose files are meant; None for those of a repository.
        repo_id: A dataset of the Hub; None for a folder.
        commit: Its commit, 40 hexadecimal digits.
    """

    folder: Path | None = None
    repo_id: str | None = None
    commit: str | None = None

    @classmethod
    def of(cls, media_from: str | Path | None) -> Self:
        """What the user handed over.

        Args:
            media_from: A local folder, or ``owner/name@commit`` of a dataset on the Hub; None is nothing at all.

        Raises:
            HubError: It is neither.
        """
        if media_from is None:
            return cls()
        folder = Path(media_from).expanduser()
        if folder.is_dir():
            return cls(folder.resolve())
        if match := _HUB_FILES.fullmatch(str(media_from)):
            return cls(None, match[1], match[2])
        raise HubError(
            f"media_from={str(media_from)!r} (--media-from) is neither a folder nor owner/name@commit of a dataset on "
            "the Hub, with the commit's 40 digits"
        )

    def find(self, path: str) -> Callable[[], bytes] | None:
        """How to read a file that a row names; None where it was not handed over, or is not there.

        Nothing is opened, and no address is asked, before what is returned is called.
        """
        if "::" in path or "\0" in path:
            return None
        if self.repo_id and self.commit:
            return _find_on_hub(path, self.repo_id, self.commit)
        if self.folder is None or "://" in path:
            return None
        for place in (self.folder / path, Path(path)):
            real = _resolved(place)
            if real and real.is_relative_to(self.folder) and not _is_hidden(real.relative_to(self.folder)):
                return partial(_read, real)
        return None


def _find_on_hub(path: str, repo_id: str, commit: str) -> Callable[[], bytes] | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    start = f"hf://datasets/{repo_id}@{commit}/"
    if path.startswith(start):
        name = path.removeprefix(start)
        leads_out = PurePosixPath(name).is_absolute() or {"..", ""} & set(name.split("/"))
        return None if leads_out else partial(_download, repo_id, commit, name)
    if "://" in path:
        return None
    # Where the Hub's client keeps it: links in the commit's own folder to files of this repository.
    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="dataset")
    place, real = Path(os.path.abspath(path)), _resolved(Path(path))  # noqa: PTH100 - where its links lead is checked
    is_inside = place.is_relative_to(Path(os.path.abspath(cache)) / "snapshots" / commit)  # noqa: PTH100
    return partial(_read, real) if real and is_inside and real.is_relative_to(cache.resolve()) else None


def _resolved(path: Path) -> Path | None:
    """Where a path leads, if to a plain file: a pipe would never end, and a device is no file."""
    try:
        real = path.resolve(strict=True)
        return real if stat.S_ISREG(real.lstat().st_mode) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _is_hidden(path: Path) -> bool:
    """Whether it is of those files that a folder holds for programs, such as ``.git/config`` or ``.env``."""
    return any(part.startswith(".") for part in path.parts)


def _read(path: Path) -> bytes:
    """The content of a plain file, which may have been replaced since it was looked at."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no plain file any more")
        return file.read()


def _download(repo_id: str, commit: str, name: str) -> bytes:
    from huggingface_hub import hf_hub_download

    request: dict[str, Any] = {"repo_id": repo_id, "filename": name, "repo_type": "dataset", "revision": commit}
    return Path(try_again(lambda: hf_hub_download(**request), repo_id)).read_bytes()


@dataclass(frozen=True)
class Reference:
    """A file or an address that a row names without giving its bytes.

    Attributes:
        row: ``im_row`` of the row where there is one, else its place.
        column: Where, as in ``messages.content.image``.
        path: What it names.
    """

    row: int
    column: str
    path: str


def references(rows: Dataset) -> Iterator[Reference]:
    """All files and addresses that media of rows name without their bytes; none of them is opened."""
    names = _columns(rows)
    if not names:
        return
    numbered = [ROW] if ROW in rows.column_names and ROW not in names else []
    first = 0
    for table in rows.select_columns([*names, *numbered]).with_format("arrow").iter(batch_size=_AT_A_TIME):
        numbers = table[ROW].to_numpy() if numbered else np.arange(first, first + table.num_rows)
        first += table.num_rows
        for name in names:
            yield from _named(table[name].combine_chunks(), rows.features[name], name, numbers)


def _columns(rows: Dataset) -> list[str]:
    """The columns with media in them."""
    plain = stored(rows.features)
    return [name for name, feature in rows.features.items() if plain[name] != feature]


def _named(array: Any, feature: Any, column: str, rows: NDArray[Any]) -> Iterator[Reference]:
    """The references in an array of a column, each value of which belongs to the row at the same place."""
    if is_media(feature):
        content, path = (pc.struct_field(array, name) for name in ("bytes", "path"))
        lacking = pc.and_(content.is_null(), path.is_valid())
        named = rows[lacking.to_numpy(zero_copy_only=False)]
        for row, text in zip(named, path.filter(lacking).to_pylist(), strict=True):
            yield Reference(int(row), column, text)
    elif isinstance(feature, dict):
        for (name, inner), values in zip(feature.items(), array.flatten(), strict=True):
            yield from _named(values, inner, f"{column}.{name}", rows)
    elif isinstance(feature, List | LargeList):
        parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
        yield from _named(pc.list_flatten(array), feature.feature, column, rows[parents])


def check_media(configs: dict[str, Dataset], files: MediaFiles, *, drop: bool) -> int:
    """Refuse rows that name files which nobody handed over.

    Args:
        configs: What shall be published, by name.
        files: What was handed over.
        drop: Whether such media are left out instead.

    Returns:
        How many are left out.

    Raises:
        HubError: Names the first one.
    """
    dropped = 0
    for name, rows in configs.items():
        for reference in references(rows):
            if files.find(reference.path) is not None:
                continue
            if not drop:
                raise HubError(
                    f"row {reference.row} of {name}: column {reference.column!r} names "
                    f"{reference.path[:_SHOWN]!r} without its bytes, and that file was not handed over; pass "
                    "media_from= (--media-from), a folder with such files or owner/name@commit of the Hub dataset that "
                    "has them, or drop_media=True (--drop-media) to publish the rows without them"
                )
            dropped += 1
    return dropped


@contextmanager
def with_media(rows: Dataset, files: MediaFiles, folder: Path) -> Iterator[Dataset]:
    """The same rows with the bytes of the files they name inside, and of each path only its last part.

    Args:
        rows: Rows that ``check_media`` let pass; media that were not handed over become null.
        files: What was handed over.
        folder: An existing folder; the rows lie in a temporary file there as long as the block lasts.

    Yields:
        The dataset itself where it holds no media.

    Raises:
        HubError: A file cannot be read.
    """
    names = _columns(rows)
    if not names:
        yield rows
        return

    def embed(table: pa.Table) -> pa.Table:
        for name in names:
            place = table.column_names.index(name)
            column, field = table[name].combine_chunks(), table.schema.field(name)
            changed = _rebuilt(column, rows.features[name], lambda media: _embedded(media, files))
            table = table.set_column(place, field, changed.cast(field.type))
        return table

    with TemporaryDirectory(dir=folder, prefix=".media-") as aside:
        # Never from the cache: a file may hold something else than when it was published last.
        how: dict[str, Any] = {"cache_file_name": str(Path(aside) / "rows.arrow"), "load_from_cache_file": False}
        how |= {"batched": True, "batch_size": _AT_A_TIME, "writer_batch_size": _AT_A_TIME, "features": rows.features}
        embedded: Any = rows.with_format("arrow").map(embed, desc="Reading media", **how)
        yield embedded.with_format(None)


def _rebuilt(array: Any, feature: Any, change: Callable[[Any], Any]) -> Any:
    """An array of a column with the media in it changed."""
    if is_media(feature):
        return change(array)
    if isinstance(feature, dict):
        inner = [_rebuilt(array.field(place), each, change) for place, each in enumerate(feature.values())]
        fields = [pa.field(name, values.type) for name, values in zip(feature, inner, strict=True)]
        return pa.StructArray.from_arrays(inner, fields=fields, mask=array.is_null())
    if isinstance(feature, List) and feature.length >= 0:
        size = feature.length
        inside = array.values[array.offset * size : (array.offset + len(array)) * size]
        return pa.FixedSizeListArray.from_arrays(_rebuilt(inside, feature.feature, change), size, mask=array.is_null())
    if isinstance(feature, List | LargeList):
        kind: Any = pa.LargeListArray if isinstance(feature, LargeList) else pa.ListArray
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = _rebuilt(pc.list_flatten(array), feature.feature, change)
        whole = pa.array(offsets, pa.int64() if kind is pa.LargeListArray else pa.int32())
        return kind.from_arrays(whole, values, mask=array.is_null())
    return array


def _embedded(media: pa.StructArray, files: MediaFiles) -> pa.StructArray:
    """Media with their bytes; null where the file was not handed over."""
    contents, paths = (pc.struct_field(media, name).to_pylist() for name in ("bytes", "path"))
    is_null = media.is_null().to_numpy(zero_copy_only=False).copy()
    for place, (content, path) in enumerate(zip(contents, paths, strict=True)):
        if content is None and path is not None:
            read = files.find(path)
            contents[place] = None if read is None else _content(read, path)
            is_null[place] = read is None
    names = [None if path is None else last_part(path) for path in paths]
    parts = [pa.array(contents, pa.binary()), pa.array(names, pa.string())]
    return pa.StructArray.from_arrays(parts, ["bytes", "path"], mask=pa.array(is_null))


def _content(read: Callable[[], bytes], path: str) -> bytes:
    try:
        return read()
    except client_errors() as error:
        raise HubError(explain(error, last_part(path))) from None
    except OSError as error:
        raise HubError(f"cannot read {path[:_SHOWN]!r}, which a row names: {error.strerror or error}") from error


def last_part(path: str) -> str:
    """What may be published of a path: no folder of this machine, and of an address no signature.

    >>> last_part("/home/me/pictures/cat.png"), last_part("zip://a/dog.png::https://x.org/pets.zip?key=1")
    ('cat.png', 'dog.png')
    """
    first = path.split("::")[0]
    address = re.split(r"[?#]", first)[0] if "://" in first else first
    return re.split(r"[/\\]", address.rstrip("/\\"))[-1]
