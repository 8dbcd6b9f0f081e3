"""What lasts on this machine: the cache folder, files and folders written whole; and what a run took of it."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from im_datasets.common.errors import OutputError

if TYPE_CHECKING:
    pass


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cache_folder() -> Path:
    """Where this package keeps things between runs: ``$IM_DATASETS_CACHE``, or ``im_datasets`` in ``$HF_HOME``."""
    from huggingface_hub import constants

    return Path(os.environ.get("IM_DATASETS_CACHE") or Path(constants.HF_HOME) / "im_datasets").expanduser()


# MKL's own memory pool spins for ever in a process forked from one whose threads used it; malloc is no slower.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")

_IMPORTED_IN = os.getpid()


def is_forked() -> bool:
    """True in a process forked from the one that imported this package, as ``Dataset.map(num_proc=2)`` does.

    OpenMP libraries that ran in the parent (torch, faiss) hang there unless they are set to one thread first.
    """
    return os.getpid() != _IMPORTED_IN


def write_text(path: str | Path, text: str) -> Path:
    """Write a file beside its place, then move it there, so that nobody ever sees half of it.

    Args:
        path: The file; its folder is made when it is missing.
        text: Its content, written as UTF-8.
    """
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Like ``write_text``, for bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def check_writable(folder: Path) -> None:
    """Find out whether a result can be written, and leave nothing behind.

    Args:
        folder: Where the result shall lie; need not be there.

    Raises:
        OutputError: It is a file, the working folder or a mount point, or nothing can be made beside it.
    """
    place = _place(folder)
    with told_if_unwritable(folder):
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
    with told_if_unwritable(file):
        if place.is_dir():
            raise OutputError(f"{file} is a folder; pass the name of a file")
        _try_beside(place)


@contextmanager
def told_if_unwritable(path: Path) -> Iterator[None]:
    """Tell in one line that a file or folder cannot be written, and why.

    Args:
        path: What the block writes.

    Raises:
        OutputError: The system refuses it.
    """
    try:
        yield
    except OSError as error:
        told = error.strerror or error
        raise OutputError(f"cannot write {path}: {told}; make room for it, or pass another folder") from error


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder aside that takes the name at the end, or vanishes when the block fails.

    Args:
        folder: The name; what is there is replaced. A link stays, and what it leads to is replaced.

    Raises:
        OutputError: The disk is full, or the place cannot be written any more.
    """
    place = _place(folder)
    aside: Path | None = None
    try:
        with told_if_unwritable(folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            aside = _make_aside(place, place.parent)
            yield aside
            aside.chmod(0o755)
            if place.exists():
                old = aside.with_suffix(".old")
                place.rename(old)
                aside.rename(place)
                shutil.rmtree(old)
            else:
                aside.rename(place)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _place(folder: Path) -> Path:
    """The folder itself, behind links and ``..``."""
    return Path(os.path.realpath(folder))


def _make_aside(place: Path, within: Path) -> Path:
    return Path(mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=within))


def _try_beside(place: Path) -> None:
    """Make a folder beside a place, or beside the first of its parents that is not there, and remove it."""
    beside = next(parent for parent in place.parents if parent.exists())
    _make_aside(place, beside).rmdir()
