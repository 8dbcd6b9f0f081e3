"""What lasts on this machine: the cache folder, files and folders written whole; and what a run took of it."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from secrets import token_hex

from im_datasets.common.errors import OutputError


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB on Linux.
    return peak if sys.platform == "darwin" else peak * 1024


def cache_folder() -> Path:
    """Where this package keeps things between runs: ``$IM_DATASETS_CACHE``, or ``im_datasets`` in ``$HF_HOME``."""
    from huggingface_hub import constants

    return Path(os.environ.get("IM_DATASETS_CACHE") or Path(constants.HF_HOME) / "im_datasets").expanduser()


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A name aside, for a file or folder that takes its place at the end of the block, or vanishes when that fails.

    All of it is on the disk before it takes its place: nobody ever sees half of it, whatever ends the process.

    Args:
        path: Where it shall lie. What is there is replaced, a folder that is missing is made. A link stays, and what
            it leads to is replaced.

    Yields:
        A path in the same folder, ``.<name>.<8 digits>.part``; the block makes a file or a folder of it.

    Raises:
        OSError: The disk is full, or the place cannot be written; see ``output_errors``.
    """
    place = _place(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(place, place.parent)
    try:
        yield aside
        for file in (aside, *aside.rglob("*")):
            if file.is_file():
                _flush(file)
        if aside.is_dir() and place.is_dir():
            # No system call replaces a folder that holds something: for a moment the name is free.
            old = aside.with_suffix(".old")
            place.rename(old)
            aside.rename(place)
            shutil.rmtree(old)
        else:
            aside.replace(place)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a file whole, as UTF-8; see ``written_whole``."""
    # Half of a surrogate pair, which a row's text may hold, becomes a question mark.
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole; see ``written_whole``."""
    with written_whole(path) as aside:
        aside.write_bytes(content)
    return Path(path)


@contextmanager
def output_errors(target: str | Path, remedy: str = "make room for it, or pass another folder") -> Iterator[None]:
    """Tell in one line that something cannot be written, why, and what to do.

    Args:
        target: What the block writes: a path, or some words that end in one.
        remedy: What mends it.

    Raises:
        OutputError: The system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error


def check_writable(folder: Path) -> None:
    """Find out whether a result can be written, and leave nothing behind.

    Args:
        folder: Where the result shall lie; need not be there.

    Raises:
        OutputError: It is a file, the working folder or a mount point, or nothing can be made beside it.
    """
    place = _place(folder)
    with output_errors(folder):
        if place.exists() and not place.is_dir():
            raise OutputError(f"{folder} is a file; pass a folder")
        inside = place == Path.cwd() or place in Path.cwd().parents
        for is_held, what in ((inside, "the folder you are in, or above it"), (place.is_mount(), "a mount point")):
            if is_held:
                raise OutputError(
                    f"{folder} is {what}, and cannot be replaced whole; pass a folder in it, such as {folder / 'mined'}"
                )
        _try_beside(place)


def check_file_writable(file: Path) -> None:
    """Find out whether a file can be written, and leave nothing behind.

    Args:
        file: Need not be there.

    Raises:
        OutputError: It is a folder, or nothing can be made beside it.
    """
    place = _place(file)
    with output_errors(file):
        if place.is_dir():
            raise OutputError(f"{file} is a folder; pass the name of a file")
        _try_beside(place)


def _place(path: str | Path) -> Path:
    """The file or folder itself, behind links and ``..``."""
    return Path(os.path.realpath(path))


def _aside(place: Path, folder: Path) -> Path:
    return folder / f".{place.name}.{token_hex(4)}.part"


def _flush(file: Path) -> None:
    """Have a file on the disk: only then does a system that writes late say that the disk is full."""
    with file.open("rb+") as content:
        os.fsync(content.fileno())


def _try_beside(place: Path) -> None:
    """Make a folder beside a place, or beside the first of its parents that is not there, and remove it."""
    aside = _aside(place, next(parent for parent in place.parents if parent.exists()))
    aside.mkdir()
    aside.rmdir()
