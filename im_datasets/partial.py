"""Where the unfinished work for a result lies: a hidden folder beside it."""

import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from im_datasets.scoring.shards import LOCK


def partial_folder(result: Path) -> Path:
    """The folder of the unfinished work.

    Args:
        result: What the work is for; a link counts as what it leads to.

    >>> partial_folder(Path("results/mined")).name
    '.mined.partial'
    """
    place = Path(os.path.realpath(result))
    return place.with_name(f".{place.name}.partial")


def drop_partial(result: Path) -> None:
    """Remove the work that led to a result, unless another run is at it."""
    partial = partial_folder(result)
    if not partial.is_dir():
        return
    try:
        with FileLock(partial / LOCK, timeout=0):
            shutil.rmtree(partial, ignore_errors=True)
    except Timeout:
        return
