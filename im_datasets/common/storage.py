"""What lasts on this machine: the cache folder, files and folders written whole; and what a run took of it."""

import ctypes
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from secrets import token_hex
from tempfile import gettempdir

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


def made_once(
    folder: Path, fill: Callable[[Path], None], what: str, room: int, is_whole: Callable[[Path], bool] = Path.is_dir
) -> Path:
    """A folder of the cache, made by the first process that wants it, while others wait; it takes its name whole.

    Args:
        folder: Somewhere in ``cache_folder()``.
        fill: Called with an empty folder, which it fills.
        what: What it is, for the error.
        room: MiB that it takes while it is made, for the error.
        is_whole: Whether what lies there is all of it.

    Returns:
        The folder.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    from filelock import FileLock

    remedy = f"set IM_DATASETS_CACHE to a folder with {room} MiB of room"
    with output_errors(f"{what} to {folder.parent}", remedy):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not is_whole(folder):
                with written_whole(folder) as aside:
                    aside.mkdir()
                    fill(aside)
    return folder


_WORK = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_LOCK, _NEW, _OLD = "lock", "new", "old"
"""All that a work folder holds: its lock, what is being made or removed, and what that replaces."""


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A name aside, for a file or folder that takes its place at the end of the block, or vanishes when that fails.

    All of it is on the disk before it takes its place: nobody ever sees half of it, whatever ends the process. What
    killed processes left of the same file or folder is removed first; see ``clear_killed``.

    Args:
        path: Where it shall lie. What is there is replaced, a folder that is missing is made. A link stays, and what
            it leads to is replaced.

    Yields:
        A path on the same disk, in ``.<name>.<8 digits>.part`` beside the place; the block makes a file or a folder
        of it.

    Raises:
        OSError: The disk is full, or the place cannot be written; see ``output_errors``.
    """
    place = _place(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    clear_killed(place)
    with _work_for(place, place.parent) as work:
        aside = work / _NEW
        yield aside
        for file in (aside, *aside.rglob("*")):
            if file.is_file():
                _flush(file)
        if not (aside.is_dir() and place.is_dir()):
            aside.replace(place)
        elif not _exchange(aside, place):
            # Two steps, between which the name is free; a kill there leaves both, of which _end makes one again.
            place.rename(work / _OLD)
            aside.rename(place)


def remove_whole(folder: Path) -> None:
    """Remove a folder at one stroke; what a kill leaves of it lies aside, where ``clear_killed`` finds it.

    Raises:
        OSError: It is not there, or cannot be moved.
    """
    place = _place(folder)
    with _work_for(place, place.parent) as work:
        place.rename(work / _NEW)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of the system's temporary one, removed at the end; what killed processes left there goes first.

    Raises:
        OSError: It cannot be made.
    """
    place = Path(gettempdir()) / "im-datasets"
    clear_killed(place)
    with _work_for(place, place.parent) as work:
        (work / _NEW).mkdir()
        yield work / _NEW


def clear_killed(path: str | Path) -> None:
    """Remove what killed processes left beside a file or folder that they were writing or removing.

    A result that was just taking the place of an older one takes it now. A process at work holds a lock, and what is
    locked stays, and so does all on a disk that knows no locks. On a network disk whose locks each machine keeps for
    itself (NFS mounted with ``nolock``), two machines must not write the same result at once.

    Args:
        path: The file or folder; need not be there.
    """
    place = _place(path)
    _clear(_nearest(place), place.name)


def clear_killed_in(folder: Path) -> None:
    """What ``clear_killed`` does, for everything in a folder."""
    _clear(folder)


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
    """Find out whether a result can be written, and leave nothing behind, of killed runs neither.

    Args:
        folder: Where the result shall lie; need not be there.

    Raises:
        OutputError: It is a file, the working folder or a mount point, or nothing can be made beside it.
    """
    place = _place(folder)
    with output_errors(folder):
        clear_killed(place)
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
    """Find out whether a file can be written, and leave nothing behind, of killed runs neither.

    Args:
        file: Need not be there.

    Raises:
        OutputError: It is a folder, or nothing can be made beside it.
    """
    place = _place(file)
    with output_errors(file):
        clear_killed(place)
        if place.is_dir():
            raise OutputError(f"{file} is a folder; pass the name of a file")
        _try_beside(place)


def _place(path: str | Path) -> Path:
    """The file or folder itself, behind links and ``..``."""
    return Path(os.path.realpath(path))


@contextmanager
def _work_for(place: Path, folder: Path) -> Iterator[Path]:
    """A hidden work folder for a file or folder, locked as long as the block lasts, removed at its end."""
    lock = None
    # Another process may take it for a dead one's, and remove it, before it is locked.
    while lock is None:
        work = folder / f".{place.name}.{token_hex(4)}.part"
        work.mkdir(mode=0o700)
        try:
            lock = _take_lock(work)
        except OSError:
            break  # a disk without locks
    try:
        yield work
    finally:
        try:
            _end(work, place)
        finally:
            if lock is not None:
                os.close(lock)


def _clear(folder: Path, name: str | None = None) -> None:
    """Remove the work folders of killed processes: those for one name, or for any."""
    for work in _works(folder):
        place = folder / work.name[1 : -len(".12345678.part")]
        if name not in (None, place.name):
            continue
        # Where it cannot be locked, or what it holds cannot be moved, it stays.
        with suppress(OSError):
            if (lock := _take_lock(work)) is not None:
                try:
                    _end(work, place)
                finally:
                    os.close(lock)


def _take_lock(work: Path) -> int | None:
    """The lock of a work folder, to be closed; None where another process holds it, or the folder is gone.

    A file and not the folder itself, which NFS could not lock.

    Raises:
        OSError: The disk knows no locks, or the folder is somebody else's.
    """
    path = work / _LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it until now may have removed the file.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _works(folder: Path) -> list[Path]:
    """Work folders in a folder, of live and of killed processes; nothing that anybody else may have made."""
    try:
        with os.scandir(folder) as entries:
            works = [Path(e.path) for e in entries if _WORK.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        return [work for work in works if {inner.name for inner in work.iterdir()} <= {_LOCK, _NEW, _OLD}]
    except OSError:
        return []


def _end(work: Path, place: Path) -> None:
    """Remove a work folder; where it was stopped between two names, its result takes the place first."""
    new, old = work / _NEW, work / _OLD
    if old.exists() and not os.path.lexists(place):
        (new if new.exists() else old).rename(place)
    shutil.rmtree(work, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names at one stroke; False where system or disk cannot (Linux can, NFS cannot)."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _flush(file: Path) -> None:
    """Have a file on the disk: only then does a system that writes late say that the disk is full."""
    with file.open("rb+") as content:
        os.fsync(content.fileno())


def _try_beside(place: Path) -> None:
    """Make a folder beside a place, or beside the first of its parents that is not there, and remove it."""
    with _work_for(place, _nearest(place)):
        pass


def _nearest(place: Path) -> Path:
    """The folder of a file or folder; where that is not there, the first above it that is."""
    return next(parent for parent in place.parents if parent.exists())
