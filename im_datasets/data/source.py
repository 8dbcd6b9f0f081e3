"""Where rows come from: local files, a saved folder or the Hub → one dataset and what to record of it.

The first stage of the flow. What the columns mean is left to ``columns``.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import datasets
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetsError

from im_datasets.common.errors import SourceError, UntrustedError, message_of
from im_datasets.data.arrow import stored, undecoded, with_features
from im_datasets.data.files import find_files, fingerprint, format_of, one_line, read_files, stream_files
from im_datasets.data.hub_repository import check_files, open_repository
from im_datasets.data.request import SourceRequest
from im_datasets.data.saved_folder import is_saved, read_saved, saved_splits

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")
"""A dataset's id on the Hub: name, or owner/name."""

SHUFFLE_BUFFER = 10_000
"""Rows held in memory to draw a random sample from a stream."""


@dataclass(frozen=True)
class Source:
    """A dataset and where it comes from.

    Attributes:
        dataset: The rows.
        info: ``kind`` (file, folder, saved or hub), ``id`` (a Hub id, a path as given when relative, else the
            last part of it), ``config``, ``split``, ``revision`` (commit sha on the Hub, else None),
            ``fingerprint`` (of the contents), ``files`` (names), ``rows``, ``limit`` and ``seed``.
        parquet: Paths, or ``hf://`` addresses at their commit, of the Parquet files whose rows, one after another,
            begin with the dataset's; empty where there are none.
        media_from: What was handed over whole, a local folder or ``owner/name@commit`` of the Hub: files in it may be
            published where a row names them. None for a single file: who gives one does not give its whole folder.
    """

    dataset: Dataset
    info: dict[str, Any]
    parquet: tuple[str, ...] = ()
    media_from: str | None = None


def load_source(
    data: str | Path,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    seed: int | None = None,
) -> Source:
    """Load a dataset from wherever it is.

    Args:
        data: A JSON, JSONL, CSV, TSV or Parquet file (or compressed), a folder or glob of them, a folder written
            by ``save_to_disk``, or a dataset id on the Hub.
        config: Configuration of a Hub dataset; None takes the only or the default one.
        split: Which split; None takes the only one.
        revision: Branch, tag or commit of a Hub dataset; None takes ``main``.
        streaming: Read rows one after another, so that ``limit`` rows cost no more than that.
        limit: Number of rows to take; None takes all.
        seed: Draws the ``limit`` rows at random and keeps their order; a stream is drawn from through a window of
            10,000 rows. None takes the first rows.

    Returns:
        The dataset, with at least one row.

    Raises:
        SourceError: Nothing is there, it cannot be read, or a choice has to be made; the message says which.
    """
    return read_source(SourceRequest(str(data), config, split, revision, streaming, limit), seed)


def read_source(request: SourceRequest, seed: int | None = None) -> Source:
    """The rows that a request asks for and where they come from.

    Args:
        request: What to read.
        seed: As ``load_source`` takes it; without meaning for rows that are a Dataset already.

    Raises:
        SourceError: As ``load_source``.
    """
    if isinstance(request.data, Dataset):
        rows = _take(request.data, request.limit, None)
        length = {"rows": len(rows), "limit": request.limit, "seed": None}
        return Source(rows, {"kind": "dataset", "fingerprint": rows._fingerprint, **length})
    text, limit = str(request.data), request.limit
    folder = Path(text).expanduser()
    parquet: tuple[str, ...] = ()
    with _quiet():
        # A saved dataset first: its folder holds no file that find_files would take.
        if is_saved(folder):
            rows, info = _from_disk(folder, request.split)
        elif files := find_files(text):
            stream = (limit, seed) if request.streaming else None
            rows, info = _from_files(files, folder, request.split, stream)
            parquet = _only_parquet(str(file.absolute()) for file in files[info["split"]])
        else:
            rows, info, parquet = _from_hub(text, request)
        if info["kind"] != "hub" and (request.config or request.revision):
            raise SourceError(
                f"config and revision belong to Hub datasets; {text} is a local {info['kind']}: leave them out"
            )
        dataset = _take(rows, limit, seed)
    if not len(dataset):
        raise SourceError(f"{text} holds no rows")
    name = text if info["kind"] == "hub" else _shown(text)
    common = {"config": None, "revision": None, "files": [], "fingerprint": dataset._fingerprint}
    taken = {"rows": len(dataset), "limit": limit, "seed": None if limit is None else seed}
    # Rows drawn at random are not those with which the files begin.
    if limit is not None and seed is not None:
        parquet = ()
    media_from = str(folder.resolve()) if folder.is_dir() else None
    if info["kind"] == "hub":
        media_from = f"{text}@{info['revision']}" if info["revision"] else None
    return Source(dataset, {"kind": info["kind"], "id": name, **common, **info, **taken}, parquet, media_from)


def check_place(data: str | Path) -> None:
    """Refuse what is no file, no folder and no id of a dataset on the Hub; the Hub is not asked.

    Raises:
        SourceError: Nothing can be there.
    """
    if not is_saved(Path(data).expanduser()) and not find_files(str(data)):
        _check_id(str(data))


def _check_id(name: str) -> None:
    # The name of a missing file, `rows.jsonl`, would pass for an id.
    if not HUB_ID.fullmatch(name) or format_of(Path(name)):
        raise SourceError(f"no file or folder {name}; check the path (this is also no dataset id of the Hub)")


def _from_files(
    splits: dict[str, list[Path]], path: Path, split: str | None, stream: tuple[int | None, int | None] | None
) -> tuple[Dataset, dict[str, Any]]:
    """Read local files; ``stream`` is limit and seed where only so many rows shall be read."""
    chosen = _choose("split", split, list(splits), path.name)
    files = splits[chosen]
    rows = None
    if stream:
        # A stream breaks off over a column that changes type, which reading whole files gets over.
        with suppress(SourceError):
            rows = _take(stream_files(files, chosen), *stream)
    rows = rows or read_files(files, chosen)
    root = path if path.is_dir() else None
    names = [str(file.relative_to(root)) if root else file.name for file in files]
    kind = "file" if path.is_file() else "folder"
    return rows, {"kind": kind, "split": chosen, "fingerprint": fingerprint(files), "files": names}


def _from_disk(folder: Path, split: str | None) -> tuple[Dataset, dict[str, Any]]:
    chosen, place = split, folder
    try:
        if (splits := saved_splits(folder)) is not None:
            chosen = _choose("split", split, splits, folder.name)
            place = folder / chosen
        saved = read_saved(place)
    except SourceError:
        raise
    except UntrustedError as error:
        raise SourceError(f"cannot read the saved dataset {folder.name}: {error}") from error
    except Exception as error:  # what somebody else wrote may break anything in the library
        raise SourceError(f"cannot read the saved dataset {folder.name}: {one_line(error)}") from error
    if splits is None and split and (saved.split or "train") != split:
        raise SourceError(f"{folder.name} is one saved dataset without a split {split!r}; leave split out")
    info = {"kind": "saved", "split": chosen, "fingerprint": saved.fingerprint, "files": saved.files}
    return saved.rows, info


def _from_hub(name: str, request: SourceRequest) -> tuple[Dataset | IterableDataset, dict[str, Any], tuple[str, ...]]:
    _check_id(name)
    try:
        builder = open_repository(name, request.config, request.revision)
        files = getattr(builder.config, "data_files", None) or {}
        splits = [str(split) for split in files or builder.info.splits or ["train"]]
        chosen = _choose("split", request.split, splits, name)
        if request.streaming:
            rows = builder.as_streaming_dataset(split=chosen)
        else:
            check_files(name, builder)
            builder.download_and_prepare()
            rows = builder.as_dataset(split=chosen)
    except SourceError:
        raise
    except UntrustedError as error:
        raise SourceError(str(error)) from error
    except Exception as error:  # what a stranger wrote may break anything in the loaders
        raise SourceError(_hub_problem(name, error)) from error
    # A builder of data files reads from hf://datasets/<id>@<commit>; that of a Parquet export has it as its hash alone.
    sha = re.search(r"@([0-9a-f]{40})", str(builder.base_path)) or re.fullmatch(r"([0-9a-f]{40})", str(builder.hash))
    commit = sha[1] if sha else None
    parquet = _only_parquet(map(str, files.get(chosen, ()) if commit else ()))
    return rows, {"kind": "hub", "config": builder.config.name, "split": chosen, "revision": commit}, parquet


def _only_parquet(files: Iterable[str]) -> tuple[str, ...]:
    """The files, where all of them are Parquet."""
    listed = tuple(files)
    return listed if all(file.lower().endswith(".parquet") for file in listed) else ()


def _hub_problem(name: str, error: Exception) -> str:
    """One line for what went wrong on the Hub, with the way out."""
    message = message_of(error)
    if "gated" in message:
        return f"{message} Accept its conditions on its page, then run: hf auth login"
    if isinstance(error, ConnectionError) or "offline" in message.lower():
        return f"no file or folder {name}, and the Hub cannot be reached: {message}; pass a local file or connect"
    if "BuilderConfig" in message or "Config name" in message:
        return f"{name}: {message.split(' Example of usage')[0]}; pass one of them as --config (config=)"
    if "Revision" in message:
        return f"{message} Pass an existing branch, tag or commit as --revision (revision=)."
    # After the gated and the missing revision, which `datasets` raises as the same DatasetNotFoundError.
    if isinstance(error, FileNotFoundError):
        # After which `datasets` lists some two hundred suffixes.
        message = message.split(" with any supported extension")[0]
        return f"no file or folder {name}, and on the Hub: {message} If it is private, run: hf auth login"
    return f"cannot load {name} from the Hub: {one_line(error)}"


def _choose(what: str, wish: str | None, choices: list[str], name: str) -> str:
    """The wish, or the only choice.

    Raises:
        SourceError: The wish is not among the choices, or there are several and no wish.
    """
    listed = ", ".join(choices)
    if wish is not None and wish not in choices:
        raise SourceError(f"{name} has no {what} {wish!r}; it has: {listed}")
    if wish is None and len(choices) != 1:
        raise SourceError(f"{name} has the {what}s {listed}; pass one as --{what} ({what}=)")
    return wish or choices[0]


def _take(rows: Dataset | IterableDataset, limit: int | None, seed: int | None) -> Dataset:
    """The rows wanted, as a dataset on disk."""
    if isinstance(rows, Dataset):
        if limit is None or limit >= len(rows):
            return rows
        if seed is None:
            return rows.select(range(limit))
        return rows.select(sorted(Random(seed).sample(range(len(rows)), limit)))  # noqa: S311 - a sample, no secret
    if limit is not None:
        rows = (rows if seed is None else rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)).take(limit)
    features = rows.features
    try:
        stream = {"rows": undecoded(rows)}
        taken = Dataset.from_generator(_iterate, gen_kwargs=stream, features=features and stored(features))
        return with_features(taken, features) if features else taken
    except (DatasetsError, OSError, ValueError) as error:
        raise SourceError(f"the stream broke off: {one_line(error)}; try again without streaming") from error


def _iterate(rows: IterableDataset) -> Iterator[dict[str, Any]]:
    yield from rows


def _shown(text: str) -> str:
    """What may stand on a card: never where a folder lies on this machine."""
    absolute = Path(text).is_absolute() or text.startswith("~")
    return Path(text).name if absolute else text.rstrip(os.sep)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loaders' log lines back; what matters in them comes as an error of our own."""
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
