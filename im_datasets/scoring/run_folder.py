"""The folder of a run's unfinished work: it lies beside the result, is locked, and holds work of one request.

``run.json`` tells the request; finished shards of the same request are taken up again, work of another one is never
mixed in. What the shards are, and how each gets there whole, is ``shards``' own.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from im_datasets.common.errors import OutputError
from im_datasets.common.storage import clear_killed, clear_killed_in, output_errors, remove_whole, write_text
from im_datasets.scoring.shards import SCORES, SHARD_ROWS, Shards

RUN, LOCK, MADE = "run.json", ".lock", "made.txt"
RUN_SCHEMA = 1


@contextmanager
def open_shards(
    folder: str | Path,
    request: Mapping[str, Any],
    rows: int,
    *,
    shard_rows: int = SHARD_ROWS,
    resume: bool = True,
) -> Iterator[Shards]:
    """The shards of a run, locked against other runs inside the block.

    Args:
        folder: Made where missing. When the block ends without one finished shard, it is removed again.
        request: All that the values depend on, in named parts of plain data.
        rows: Rows of the run.
        shard_rows: Rows per shard.
        resume: Whether finished shards of the same request count; else they are thrown away.

    Raises:
        OutputError: Another run is at it, the folder holds something else, or it holds work of another request.
    """
    folder = Path(folder)
    # As it is read back from run.json, tuples as lists, so that the two can be compared.
    request = json.loads(json.dumps({**request, "layout": {"rows": rows, "shard_rows": shard_rows}}))
    digest = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    shards = Shards(folder, digest, rows, shard_rows)
    with output_errors(f"to {folder}", "pass another folder"):
        clear_killed(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:  # an OSError too, of which there is more to say
            raise OutputError(
                f"another run is writing to {folder}; wait until it ends, or write to another folder"
            ) from error
    try:
        _prepare(shards, request, resume)
        yield shards
    finally:
        if not any(folder.glob("shard-*.parquet")) and not _is_foreign(folder):
            with suppress(OSError):
                remove_whole(folder)
        # Last: from here on another run may begin.
        lock.release()


def _prepare(shards: Shards, request: Mapping[str, Any], resume: bool) -> None:
    """Make the folder one of this request, with nothing in it but finished shards."""
    folder = shards.folder
    if _is_foreign(folder):
        raise OutputError(f"{folder} is not empty and holds no {RUN}; pass another folder")
    has_shards = any(folder.glob("shard-*.parquet"))
    # RUN last: without it, what a kill leaves would be taken for somebody else's.
    stale = [MADE] if resume and has_shards else [MADE, "shard-*", "column-*", SCORES, RUN]
    for path in [path for pattern in stale for path in folder.glob(pattern)]:
        path.unlink(missing_ok=True)
    clear_killed_in(folder)
    if (folder / RUN).is_file():
        _check_same(folder, request)
    else:
        run = {"schema_version": RUN_SCHEMA, "digest": shards.digest, "request": request}
        text = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
        shards.put(folder / RUN, lambda file: file.write(text.encode()))


def _is_foreign(folder: Path) -> bool:
    """Whether there is something in the folder that no run of ours put there."""
    return not (folder / RUN).is_file() and any(
        path.name != LOCK and path.suffix != ".part" for path in folder.iterdir()
    )


def _check_same(folder: Path, request: Mapping[str, Any]) -> None:
    """Refuse work of another request."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        earlier = dict(run["request"]) if run["schema_version"] == RUN_SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / RUN} cannot be read ({error}); pass --no-resume (resume=False) to throw the unfinished work "
            "away"
        ) from error
    if earlier != request:
        differing = [name for name in {**request, **earlier} if earlier.get(name) != request.get(name)]
        raise OutputError(
            f"{folder} holds unfinished work of another request (differing in: {', '.join(differing)}); ask the same "
            "again to go on with it, pass --no-resume (resume=False) to throw it away, or another folder"
        )


def unfinished_folder(result: Path) -> Path:
    """The folder of the unfinished work.

    Args:
        result: What the work is for; a link counts as what it leads to.

    >>> unfinished_folder(Path("results/mined")).name
    '.mined.partial'
    """
    place = Path(os.path.realpath(result))
    return place.with_name(f".{place.name}.partial")


def note_result(result: Path, request: str) -> None:
    """Note in the folder of the unfinished work that it is done, and only the result of a request has to be written."""
    write_text(unfinished_folder(result) / MADE, request)


def drop_unfinished(result: Path, request: str) -> None:
    """Remove the work that led to a result, unless another run is at it, or it has become that of another request.

    Args:
        result: What the work was for.
        request: As ``note_result`` got it.
    """
    folder = unfinished_folder(result)
    clear_killed(folder)
    if folder.is_dir():
        with suppress(OSError), FileLock(folder / LOCK, timeout=0):  # filelock's Timeout is one
            if (folder / MADE).read_text(encoding="utf-8") == request:
                remove_whole(folder)
