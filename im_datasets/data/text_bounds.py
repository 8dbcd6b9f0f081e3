"""What a text file of a stranger would do to the library that reads it, found out line by line before it is read."""

import bz2
import codecs
import gzip
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from im_datasets.common.errors import UntrustedError, message_of
from im_datasets.data.parquet_bounds import COLUMNS

DEEPEST = 1000
"""The deepest nesting of a row that is read; conversations have ten levels."""

UNFOLDED, UNFOLDED_BYTES = 100, 2**28
"""How many times its size a compressed file may come to, beyond so many bytes; texts come to 3 to 10 times."""

_WHOLE_LINE = 2**26
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKET = bytes(set(range(256)) - set(b"{}[]"))
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}


def check_text(
    what: str,
    open_file: Callable[[], IO[bytes]],
    *,
    packed: int | None,
    is_json: bool,
    is_utf8: bool = True,
    separator: str | None = None,
) -> None:
    """Refuse a text that unfolds to far more than its size, is no UTF-8, has too many columns, or ends `pyarrow`.

    Broken UTF-8 breaks later, where nobody can tell which line it was; of JSON of 20,000 levels, and of one that begins
    with null, `pyarrow` ends the process.

    Args:
        what: What it is, for the error.
        open_file: Opens its bytes, from the start.
        packed: The size of the compressed file that it comes from; None where it is not compressed.
        is_json: Whether it is read as JSON.
        is_utf8: Whether it must be UTF-8.
        separator: What stands between two columns of a table; None where it is none.

    Raises:
        UntrustedError: Names the line.
        OSError: It cannot be read, as other errors of the library that unpacks it.
    """
    if packed is not None:
        with open_file() as stream:
            _check_size(what, stream, packed)
    number, depth = 0, 0
    try:
        with open_file() as stream:
            for number, line in enumerate(stream, 1):
                if is_utf8:
                    line.decode()
                if number == 1 and separator:
                    is_space = separator == r"\s+"
                    _check_columns(what, len(line.split()) if is_space else 1 + line.count(separator.encode()))
                if is_json and not depth:
                    _check_columns(what, _keys(line))
                if is_json and not depth and line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"null"):
                    raise UntrustedError(f"line {number} of {what} is null; each row must be an object")
                if is_json and (depth := _depth_after(line, depth)) > DEEPEST:
                    raise UntrustedError(f"line {number} of {what} is nested too deeply to be read; remove it")
    except UnicodeDecodeError as error:
        raise UntrustedError(f"line {number} of {what} is not UTF-8 text; save the file as UTF-8") from error


def check_packed(what: str, path: Path, *, is_json: bool, separator: str | None = None) -> None:
    """Refuse a text file as ``check_text`` does, whatever it is packed into: `datasets` goes by the first bytes.

    Args:
        what: What it is, for the error.
        path: Where it lies.
        is_json: Whether it is read as JSON.
        separator: As for ``check_text``.

    Raises:
        UntrustedError: As ``check_text``; or it is packed in a way that cannot be measured, or broken.
    """
    from datasets.utils.extract import Extractor

    kind = Extractor.infer_extractor_format(path)
    options: dict[str, Any] = {"is_json": is_json, "is_utf8": False, "separator": separator}
    try:
        if kind in ("zip", "tar"):
            for name, open_file in (_in_zip if kind == "zip" else _in_tar)(what, path):
                check_text(f"{name!r} in {what}", open_file, packed=None, **options)
        elif kind and kind not in _OPENERS:
            raise UntrustedError(f"{what} is packed by {kind}, and cannot be measured; unpack it, and pass its files")
        else:
            open_file = partial(_OPENERS[kind] if kind else open, path, "rb")
            packed = path.stat().st_size if kind else None
            check_text(what, open_file, packed=packed, **options)
    except UntrustedError:
        raise
    except (EOFError, OSError, ValueError, RuntimeError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UntrustedError(f"{what} cannot be unpacked: {message_of(error)}") from error


def _in_zip(what: str, path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(path) as archive:
        # No member gives more than the size that the archive states of it.
        _check_sum(what, sum(member.file_size for member in archive.infolist()), path.stat().st_size)
        for member in archive.infolist():
            yield member.filename, partial(archive.open, member)


def _in_tar(what: str, path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    size = 0
    with tarfile.open(path) as archive:
        for member in archive:
            _check_sum(what, size := size + member.size, path.stat().st_size)
            if member.isfile() and (stream := archive.extractfile(member)):
                yield member.name, lambda stream=stream: stream  # type: ignore[misc]


def _check_size(what: str, stream: IO[bytes], packed: int) -> None:
    size = 0
    while block := stream.read(2**20):
        size += len(block)
        _check_sum(what, size, packed)


def _check_sum(what: str, size: int, packed: int) -> None:
    if size > (most := max(UNFOLDED_BYTES, UNFOLDED * packed)):
        bound = f"more than {most:,} bytes, far more than its size"
        raise UntrustedError(f"{what} unfolds to {bound}; unpack it yourself where you trust it")


def _check_columns(what: str, columns: int) -> None:
    if columns > COLUMNS:
        raise UntrustedError(f"{what} has {columns:,} columns; more than {COLUMNS:,} are not read")


def _keys(line: bytes) -> int:
    """The most keys of a row in a line of JSON that is whole; no more than it has colons."""
    # A file on one line may have a million rows: it is gone through a second time, up to a size that is soon read.
    if (colons := line.count(b":")) <= COLUMNS or len(line) > _WHOLE_LINE:
        return min(colons, COLUMNS)
    try:
        rows = json.loads(line)
    except (ValueError, RecursionError):
        return 0  # for the reader to tell, or to go on with in the next line
    return max((len(row) for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict)), default=0)


def _depth_after(line: bytes, depth: int) -> int:
    """Objects and arrays that are open after a line of JSON; more than ``DEEPEST`` where so many were within it."""
    brackets = _JSON_TEXT.sub(b"", line).translate(None, _NO_BRACKET)
    opened = brackets.count(b"{") + brackets.count(b"[")
    if depth + opened <= DEEPEST:
        return max(0, depth + 2 * opened - len(brackets))
    for bracket in brackets:
        depth = depth + 1 if bracket in b"{[" else max(0, depth - 1)
        if depth > DEEPEST:
            break
    return depth
