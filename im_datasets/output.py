"""Where a result goes: whether it may be written there, found out before anything is scored, and writing it whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from im_datasets.common.errors import OutputError
from im_datasets.report.card import FIGURE, PANELS
from im_datasets.report.result_folder import CARD, DROPPED, KEPT, RECORD, REPORT

PARTS = (KEPT, DROPPED, RECORD, REPORT, CARD, FIGURE, PANELS)
"""Every file of a result, by its path in the folder."""


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


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something and is no result.

    Args:
        folder: Where a result shall be written; need not be there.
        overwrite: Whether an older result may be replaced.

    Raises:
        OutputError: It holds files and no record.
    """
    if not folder.is_dir():
        return
    if any(folder.iterdir()) and not (folder / RECORD).is_file():
        what = "--overwrite only replaces results of im-datasets; " if overwrite else ""
        raise OutputError(f"{folder} is not empty and holds no {RECORD}; {what}pass another folder")


def check_loses_nothing(folder: Path) -> None:
    """Refuse to replace a result beside which somebody put files.

    Args:
        folder: What would be replaced; need not be there.

    Raises:
        OutputError: It holds files that im-datasets did not write; the message names them.
    """
    foreign = [path for path in _entries(folder) if path not in PARTS]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{folder} holds {', '.join(foreign[:3])}{more}, which im-datasets did not write and --overwrite would "
            "delete; move it away, or pass another folder"
        )


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


def missing_parts(folder: Path) -> list[str]:
    """The files of a result that are not there; all of them where there is no record, which is written last."""
    missing = [path for path in PARTS if not (folder / path).is_file()]
    return list(PARTS) if RECORD in missing else missing


def _place(folder: Path) -> Path:
    """The folder itself, behind links and ``..``."""
    return Path(os.path.realpath(folder))


def _make_aside(place: Path, within: Path) -> Path:
    return Path(mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=within))


def _try_beside(place: Path) -> None:
    """Make a folder beside a place, or beside the first of its parents that is not there, and remove it."""
    beside = next(parent for parent in place.parents if parent.exists())
    _make_aside(place, beside).rmdir()


def _entries(folder: Path) -> list[str]:
    """Paths of the files in a folder, and of folders that hold none."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    return sorted(path.relative_to(folder).as_posix() for path in found)
